"""No server, and an answer all the same: only with the head that the contract names, and marked as such."""

from __future__ import annotations

import shutil
import traceback

import pytest

from dcp_sdk import BundleError, ConfigError, DeadlineExceeded, PrivateClient, ServerUnavailable, Timeouts
from dcp_sdk.bundles.bundle import HEAD_FILE
from dcp_sdk.deadline import Deadline
from dcp_sdk.local_head import LocalHead
from dcp_sdk.preprocess import Image
from tests.sdk.transport import hostile
from tests.tiny import Tiny

TIMEOUTS = Timeouts(connect_s=2, predict_s=2)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_no_server_from_the_start(scheme: str, broken: Tiny, closed_port: int, picture: Image) -> None:
    address = f"{scheme}://127.0.0.1:{closed_port}"
    shutil.copy(broken.head, broken.bundle / HEAD_FILE)
    with PrivateClient(broken.bundle, f"memory://{broken.repository}", device="cpu") as client:
        expected = client.predict(picture)
        assert expected.answered_by == "server"
    with PrivateClient(broken.bundle, address, device="cpu", on_failure="local", timeouts=TIMEOUTS) as client:
        for _ in range(8):  # beyond the point where the circuit opens
            prediction = client.predict(picture)
            assert (prediction.answered_by, prediction.server) == ("device", "device")
            assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    with pytest.raises(ServerUnavailable):
        PrivateClient(broken.bundle, address, timeouts=TIMEOUTS)


def test_a_head_that_is_too_slow_does_not_hide_that_the_payload_was_sent(
    broken: Tiny, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(broken.head, broken.bundle / HEAD_FILE)
    refusal = hostile.Refusal("INTERNAL", 500, "no")
    with hostile.http_server(broken.manifest.contract, refusal) as address:
        with PrivateClient(broken.bundle, address, device="cpu", on_failure="local") as client:
            monkeypatch.setattr(LocalHead, "answer", lambda *_: Deadline(0).check("a run of the head"))
            with pytest.raises(DeadlineExceeded, match=r"ServerRejected.*handed to a connection 1 time") as caught:
                client.predict(picture)
    assert "Nothing was sent" not in "".join(traceback.format_exception(caught.value))


def test_nonsense_is_no_answer(broken: Tiny, picture: Image) -> None:
    shutil.copy(broken.head, broken.bundle / HEAD_FILE)
    contract = broken.manifest.contract
    liar = hostile.true_answer(contract)
    liar.data = liar.data[::-1]
    with hostile.http_server(contract, liar) as address:
        with PrivateClient(broken.bundle, address, device="cpu", on_failure="local") as client:
            prediction = client.predict(picture)
    assert (prediction.answered_by, prediction.sends) == ("device", 1)


def test_a_bundle_without_a_head(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="--with-head"):
        PrivateClient(tiny.bundle, f"memory://{tiny.repository}", on_failure="local")


def test_the_head_of_another_bundle(broken: Tiny, other: Tiny) -> None:
    shutil.copy(other.head, broken.bundle / HEAD_FILE)
    with pytest.raises(BundleError, match="SHA-256"):
        PrivateClient(broken.bundle, f"memory://{broken.repository}", on_failure="local")


def test_a_policy_that_does_not_exist(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="on_failure"):
        PrivateClient(tiny.bundle, f"memory://{tiny.repository}", on_failure="guess")  # type: ignore[arg-type]
