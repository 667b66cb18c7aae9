"""What stands in the log while servers fail and come back, and what never does."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dcp_sdk import AccessDenied, PrivacyGuardError, PrivateClient, Security, Timeouts
from dcp_sdk.bundles.bundle import HEAD_FILE
from dcp_sdk.calls import stages as stages_module
from dcp_sdk.events import LEVELS
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.e2e.secrets import Secrets
from tests.e2e.tap import port_of, tap
from tests.tiny import ROOT, Tiny

KEY = "opensesame-31415926"


def fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name.startswith("dcp_")}


@pytest.mark.triton
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_each_change_is_told_once_and_nothing_private_with_it(
    scheme: str,
    tiny_server: TritonServer,
    tiny: Tiny,
    noise: Image,
    secrets: Secrets,
    refuse: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def deny(*_: object) -> None:
        raise AccessDenied(f"{KEY} is no key for {noise.tobytes()!r}")  # a server may say what it was sent

    port = port_of(tiny_server, scheme)
    bundle = shutil.copytree(tiny.bundle, tmp_path / "bundle")
    shutil.copy(tiny.head, bundle / HEAD_FILE)
    monkeypatch.setenv("DCP_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)  # of everybody: libraries may not tell either
    with tap(port) as one, tap(port) as two:
        first, second = (f"{scheme}://127.0.0.1:{wire.port}" for wire in (one, two))
        with PrivateClient(
            bundle,
            [first, second],
            device="cpu",
            timeouts=Timeouts(connect_s=5, predict_s=5),
            security=Security(api_key_variable="DCP_TEST_KEY"),
            on_failure="local",
        ) as client:
            client.predict(noise)
            assert KEY.encode() in one.sent
            assert caplog.records == [], "all is well: nothing to tell"
            one.refuse()
            for _ in range(12):
                client.predict(noise)
            one.listen()
            end = time.monotonic() + 10
            while client.predict(noise).server != first:
                assert time.monotonic() < end
                time.sleep(0.05)
            with monkeypatch.context() as patch:
                for server, answering in zip(client._servers._servers, (second, "device"), strict=True):
                    patch.setattr(server.transport, "infer", deny)
                    assert [client.predict(noise).server for _ in range(3)] == [answering] * 3
            assert client.predict(noise).server == first
            with monkeypatch.context() as patch, pytest.raises(PrivacyGuardError):
                patch.setattr(stages_module, "check_payload", refuse)
                client.predict(noise)
    told = [fields(record) for record in caplog.records]
    assert [each.pop("dcp_event") for each in told] == [
        "server_lost",
        "failover",
        "breaker_opened",
        "server_back",
        "breaker_closed",
        "failover",
        "server_refused",
        "failover",
        "server_refused",
        "answered_locally",
        "server_back",
        "failover",
        "guard_refused",
    ]
    assert told[:3] == [
        {"dcp_server": first, "dcp_error": "ServerUnavailable"},
        {"dcp_server": second, "dcp_before": first},
        {"dcp_server": first, "dcp_error": "ServerUnavailable"},
    ]
    assert set(told[3]) == {"dcp_server", "dcp_seconds"}
    assert told[6:10] == [
        {"dcp_server": first, "dcp_error": "AccessDenied"},
        {"dcp_server": second, "dcp_before": first},
        {"dcp_server": second, "dcp_error": "AccessDenied"},
        {"dcp_error": "AccessDenied"},
    ]
    assert told[12] == {"dcp_digest": tiny.manifest.contract.digest[:12]}
    assert all(record.name == "dcp_sdk" and record.exc_info is None for record in caplog.records)
    written = str([(record.getMessage(), vars(record)) for record in caplog.records])
    for form in (written.encode(), written.encode("latin-1", "replace")):
        assert secrets.found_in(form) == []
        assert secrets.kept not in form
    assert KEY not in written
    assert repr(noise.tobytes())[2:20] not in written


def test_the_page_lists_every_event() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    levels = {event: logging.getLevelName(level) for event, level in LEVELS.items()}
    assert [event for event, level in levels.items() if f"| `{event}` | {level} |" not in page] == []
