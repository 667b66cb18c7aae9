"""A device that answers itself says so: in its answers, in its numbers and in the log, and nothing private with it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import pytest

from dcp_sdk import (
    AccessDenied,
    CircuitBreaker,
    ContractMismatch,
    DCPError,
    DeadlineExceeded,
    PrivateClient,
    Retries,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    TLSFailed,
)
from dcp_sdk.bundles.bundle import HEAD_FILE
from dcp_sdk.local_head import LocalHead
from dcp_sdk.obfuscate import Payload
from dcp_sdk.preprocess import Image
from tests.sdk.helpers import Recorder
from tests.tiny import Tiny


class Scripted(Recorder):
    """Fails with each of ``failures`` in turn, then answers; nonsense where ``lies``."""

    failures: tuple[DCPError, ...] = ()
    lies = False

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        if self.failures:
            failure, *rest = self.failures
            self.failures = tuple(rest)
            raise failure
        return super().infer(payload, timeout_s) / (2 if self.lies else 1)


@pytest.fixture
def server(broken: Tiny) -> Scripted:
    shutil.copy(broken.head, broken.bundle / HEAD_FILE)
    return Scripted(broken.repository)


@pytest.fixture
def client(broken: Tiny, server: Scripted) -> Iterator[PrivateClient]:
    options: dict[str, Any] = {"retries": Retries.none(), "breaker": CircuitBreaker(failures=2)}
    with PrivateClient(broken.bundle, transport=server, device="cpu", on_failure="local", **options) as client:
        yield client


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    """Read event and error of each record since the last time."""
    found = [(vars(record)["dcp_event"], vars(record).get("dcp_error")) for record in caplog.records]
    caplog.clear()
    return found


@pytest.mark.parametrize("kind", [AccessDenied, TLSFailed, ServerRejected, ContractMismatch])
def test_what_somebody_must_mend_is_told_once_and_counted(
    kind: type[DCPError],
    client: PrivateClient,
    server: Scripted,
    picture: Image,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dcp_sdk")
    assert client.predict(picture).failure is None
    server.failures = (kind("secret"),) * 3
    predictions = [client.predict(picture) for _ in range(3)]
    assert [(each.answered_by, each.failure) for each in predictions] == [("device", kind.__name__)] * 3
    assert "secret" not in caplog.text, "what a server says may be what it was sent"
    assert told(caplog) == [("server_refused", kind.__name__), ("answered_locally", kind.__name__)]
    assert client.predict(picture).failure is None
    assert told(caplog) == [("server_back", None)]
    server.failures = (kind("again"),)
    client.predict(picture)
    assert told(caplog) == [("server_refused", kind.__name__), ("answered_locally", kind.__name__)]
    stats = client.stats()
    assert (stats.failures, stats.hidden_failures) == ({}, {kind.__name__: 4})
    assert stats.answered_locally == 4


def test_an_outage_is_one_reason_whatever_its_classes(
    client: PrivateClient, server: Scripted, picture: Image, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dcp_sdk")
    server.failures = (ServerTimeout("slow"), ServerUnavailable("reset"))
    failures = [client.predict(picture).failure for _ in range(4)]
    assert failures == ["ServerTimeout", "ServerUnavailable", "CircuitOpen", "CircuitOpen"]
    assert [event for event, _ in told(caplog)] == ["server_lost", "answered_locally", "breaker_opened"]
    assert client.stats().hidden_failures == {"ServerTimeout": 1, "ServerUnavailable": 1, "CircuitOpen": 2}


def test_nonsense_is_told_too(
    client: PrivateClient, server: Scripted, picture: Image, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dcp_sdk")
    server.lies = True
    assert [client.predict(picture).failure for _ in range(2)] == ["ServerRejected"] * 2
    assert told(caplog) == [("answered_locally", "ServerRejected")]
    assert client.stats().hidden_failures == {"ServerRejected": 2}


def test_what_the_caller_sees_is_not_hidden(
    client: PrivateClient, server: Scripted, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise DeadlineExceeded("late")

    server.failures = (AccessDenied("key"),)
    monkeypatch.setattr(LocalHead, "answer", late)
    with pytest.raises(DeadlineExceeded):
        client.predict(picture)
    stats = client.stats()
    assert (stats.failures, stats.hidden_failures) == ({"DeadlineExceeded": 1}, {})
