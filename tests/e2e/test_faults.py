"""Every fault ends typed and by the deadline, the same client recovers, and only payloads ever leave."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dcp_sdk import (
    ContractMismatch,
    Prediction,
    PrivateClient,
    ServerError,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    Timeouts,
)
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.e2e import fault as faults
from tests.e2e.bodies import only_payloads_left
from tests.e2e.fault import FAULTS, HARMLESS, Fault
from tests.e2e.secrets import Secrets
from tests.e2e.tap import Tap, port_of, tap
from tests.sdk.transport import hostile
from tests.supervisor import Supervisor
from tests.tiny import ROOT, Tiny

PREDICT_S = 1.5
SLACK_S = 1.0
"""What a loaded machine may take to wake a thread. The real overshoot is measured by ``tests/benchmarks/soak.py``."""
RECOVERY_S = 10.0

SCHEMES = pytest.mark.parametrize("scheme", ["grpc", "http"])


@pytest.fixture
def local(tiny: Tiny, noise: Image) -> Prediction:
    """Know the right answer."""
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        return client.predict(noise)


def connect(tiny: Tiny, *addresses: str) -> PrivateClient:
    return PrivateClient(tiny.bundle, addresses, device="cpu", timeouts=Timeouts(connect_s=5, predict_s=PREDICT_S))


def outcome(client: PrivateClient, picture: Image) -> Prediction | ServerError | ContractMismatch:
    """Predict once; any other error, and any lateness, fails the test."""
    start = time.monotonic()
    try:
        return client.predict(picture)
    except (ServerError, ContractMismatch) as error:
        return error
    finally:
        assert time.monotonic() - start < PREDICT_S + SLACK_S


def recovers(client: PrivateClient, picture: Image) -> Prediction:
    """Predict until it succeeds; the breaker may still be open for a moment."""
    end = time.monotonic() + RECOVERY_S
    while True:
        result = outcome(client, picture)
        if isinstance(result, Prediction):
            return result
        assert time.monotonic() < end, result
        time.sleep(0.05)


def same(prediction: Prediction, expected: Prediction) -> bool:
    return prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


@pytest.mark.triton
@SCHEMES
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_on_the_wire(
    name: str, scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets, local: Prediction
) -> None:
    kind, errors = FAULTS[name]
    with connect(tiny, f"{scheme}://127.0.0.1:{wire.port}") as client:
        assert same(client.predict(noise), local)
        broken = kind()
        wire.fault = broken
        for _ in range(2):  # on the connection that was open, and on a new one
            result = outcome(client, noise)
            if isinstance(result, Prediction):
                assert name in HARMLESS
                assert same(result, local)
            else:
                assert isinstance(result, errors), result
                assert "expected" in str(result) or "refused" in str(result)
        wire.fault = Fault()
        if isinstance(broken, faults.SlowReply):
            broken.over.set()
        if isinstance(broken, faults.HalfOpen):
            wire.forget()  # those that were open stay so: only new ones are well
        assert same(recovers(client, noise), local)
    assert only_payloads_left(wire, tiny, secrets) >= 2


@pytest.mark.triton
@SCHEMES
def test_refused_and_taken_again(
    scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets, local: Prediction
) -> None:
    with connect(tiny, f"{scheme}://127.0.0.1:{wire.port}") as client:
        client.predict(noise)
        wire.refuse()
        before = len(wire.sent)
        assert isinstance(outcome(client, noise), ServerUnavailable)
        stats = client.stats()
        for _ in range(3):
            assert isinstance(outcome(client, noise), ServerUnavailable)
        assert len(wire.sent) == before
        assert (client.stats().sends, client.stats().bytes_sent) == (stats.sends, stats.bytes_sent), "nobody took it"
        wire.listen()
        assert same(recovers(client, noise), local)
    assert only_payloads_left(wire, tiny, secrets) == 2


@pytest.mark.triton
@SCHEMES
def test_a_reset_that_passes_is_not_seen(
    scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets, local: Prediction
) -> None:
    """One reset after the request: the retry sends the very same bytes, and the caller gets an answer."""

    class Once(faults.ResetAfterRequest):
        def reply(self, data: bytes, send: faults.Send) -> None:
            wire.fault = Fault()
            super().reply(data, send)

    with connect(tiny, f"{scheme}://127.0.0.1:{wire.port}") as client:
        client.predict(noise)
        wire.fault = Once()
        prediction = outcome(client, noise)
    assert isinstance(prediction, Prediction)
    assert same(prediction, local)
    assert prediction.sends == 2
    assert wire.sent.count(secrets.kept) == 3, "one call, then the same payload twice"
    assert only_payloads_left(wire, tiny, secrets) == 3


@pytest.mark.triton
@SCHEMES
def test_killed_and_started_again(
    scheme: str, own_server: TritonServer, tiny: Tiny, noise: Image, secrets: Secrets, local: Prediction
) -> None:
    with tap(port_of(own_server, scheme)) as wire:
        with connect(tiny, f"{scheme}://127.0.0.1:{wire.port}") as client:
            for _ in range(2):
                assert same(recovers(client, noise), local)
                own_server.kill()
                for _ in range(3):
                    assert isinstance(outcome(client, noise), ServerUnavailable)
                own_server.start()
            assert same(recovers(client, noise), local)
        only_payloads_left(wire, tiny, secrets)


@pytest.mark.triton
@SCHEMES
def test_started_again_with_another_head(
    scheme: str, own_server: TritonServer, tiny: Tiny, other: Tiny, noise: Image, secrets: Secrets, local: Prediction
) -> None:
    """It gets no payload, and gives no answer; the right head is welcome again."""
    port = port_of(own_server, scheme)
    ports = {"grpc_port": port_of(own_server, "grpc"), "http_port": port_of(own_server, "http")}
    with tap(port) as wire, connect(tiny, f"{scheme}://127.0.0.1:{wire.port}") as client:
        assert same(client.predict(noise), local)
        own_server.kill()
        with TritonServer(other.repository, venv=ROOT / ".venv-triton", **ports):
            sent = wire.sent.count(secrets.kept)
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                assert isinstance(outcome(client, noise), ContractMismatch | ServerUnavailable)
            with pytest.raises(ContractMismatch, match="digest"):
                client.predict(noise)
            assert wire.sent.count(secrets.kept) == sent, "no payload for a stranger"
        own_server.start()
        assert same(recovers(client, noise), local)


@pytest.mark.triton
@SCHEMES
def test_a_head_that_changes_behind_one_address_never_answers(
    scheme: str, wire: Tap, own_server: TritonServer, tiny: Tiny, other: Tiny, noise: Image
) -> None:
    """Connections are cut and lead to another server at once, while threads predict all the time."""
    with PrivateClient(other.bundle, f"memory://{other.repository}", device="cpu") as client:
        theirs = client.predict(noise).probabilities
    wire.target = right = port_of(own_server, scheme)
    stop = threading.Event()
    answers: list[Prediction] = []

    def work() -> None:
        while not stop.is_set():
            result = outcome(client, noise)
            if isinstance(result, Prediction):
                answers.append(result)

    with TritonServer(other.repository, venv=ROOT / ".venv-triton") as stranger, Supervisor(own_server, stranger):
        with connect(tiny, f"{scheme}://127.0.0.1:{wire.port}") as client, ThreadPoolExecutor(3) as pool:
            mine = client.predict(noise).probabilities
            assert mine != pytest.approx(theirs, abs=1e-4)
            futures = [pool.submit(work) for _ in range(3)]
            for turn in range(24):
                wire.target = port_of(stranger, scheme) if turn % 2 == 0 else right
                wire.cut()
                time.sleep((0.05, 0.2)[turn % 2])
            stop.set()
            for future in futures:
                future.result(30)
            assert recovers(client, noise).probabilities == pytest.approx(mine, abs=1e-6)
    assert len(answers) > 10
    assert all(answer.probabilities == pytest.approx(mine, abs=1e-6) for answer in answers)


LIES: dict[str, Callable[[hostile.Answer], hostile.Answer]] = {
    "a wrong shape": lambda answer: dataclasses.replace(answer, shape=(2, 2), data=answer.data * 2),
    "NaN": lambda answer: dataclasses.replace(answer, data=np.full(2, np.nan, "<f4").tobytes()),
}


@SCHEMES
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_nonsense_is_refused_and_forgotten(
    lie: Callable[[hostile.Answer], hostile.Answer], scheme: str, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    serve = {"grpc": hostile.grpc_server, "http": hostile.http_server}[scheme]
    honest = hostile.true_answer(tiny.manifest.contract)
    answer = dataclasses.replace(honest)
    with (
        serve(tiny.manifest.contract, answer) as address,
        tap(int(address.rpartition(":")[2])) as wire,
        connect(tiny, f"{scheme}://127.0.0.1:{wire.port}") as client,
    ):
        for said in (honest, lie(honest), honest):
            for field in dataclasses.fields(said):
                setattr(answer, field.name, getattr(said, field.name))
            assert isinstance(outcome(client, noise), Prediction if said is honest else ServerRejected)
    assert only_payloads_left(wire, tiny, secrets) == 3


@pytest.mark.triton
@SCHEMES
def test_failover_and_return(
    scheme: str, wire: Tap, tiny_server: TritonServer, tiny: Tiny, noise: Image, secrets: Secrets, local: Prediction
) -> None:
    with tap(port_of(tiny_server, scheme)) as second:
        addresses = [f"{scheme}://127.0.0.1:{one.port}" for one in (wire, second)]
        with connect(tiny, *addresses) as client:
            assert client.predict(noise).server == addresses[0]
            assert not second.streams, "the second is not troubled while the first is well"
            wire.refuse()
            for _ in range(6):
                prediction = client.predict(noise)
                assert (prediction.server, prediction.answered_by) == (addresses[1], "server")
                assert same(prediction, local)
            wire.listen()
            end = time.monotonic() + RECOVERY_S
            while client.predict(noise).server != addresses[0]:
                assert time.monotonic() < end
                time.sleep(0.05)
            wire.fault = faults.HalfOpen()
            assert client.predict(noise).server == addresses[1], "within the deadline of one call"
        for one in (wire, second):
            only_payloads_left(one, tiny, secrets)


@pytest.mark.triton
@SCHEMES
def test_failover_never_trusts_another_head(
    scheme: str, wire: Tap, own_server: TritonServer, tiny: Tiny, other: Tiny, noise: Image, secrets: Secrets
) -> None:
    own_server.kill()
    ports = {"grpc_port": port_of(own_server, "grpc"), "http_port": port_of(own_server, "http")}
    with TritonServer(other.repository, venv=ROOT / ".venv-triton", **ports) as stranger:
        with tap(port_of(stranger, scheme)) as second:
            addresses = [f"{scheme}://127.0.0.1:{one.port}" for one in (wire, second)]
            with connect(tiny, *addresses) as client:
                wire.refuse()
                for _ in range(3):
                    assert isinstance(outcome(client, noise), ServerUnavailable | ContractMismatch)
                assert secrets.kept not in second.sent
                assert only_payloads_left(second, tiny, secrets) == 0


@pytest.mark.triton
@SCHEMES
def test_closing_waits_for_calls(scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets) -> None:
    """A call that can end ends well; a call that cannot ends typed, by its deadline."""
    for held in (False, True):
        client = connect(tiny, f"{scheme}://127.0.0.1:{wire.port}")
        wire.hold.set()
        seen = wire.sent.count(secrets.kept)
        with ThreadPoolExecutor(2) as pool:
            call = pool.submit(outcome, client, noise)
            end = time.monotonic() + 5
            while wire.sent.count(secrets.kept) == seen and time.monotonic() < end:
                time.sleep(0.01)
            closing = pool.submit(client.close)
            time.sleep(0.1)
            assert not closing.done(), "it waits"
            if not held:
                wire.hold.clear()
                assert isinstance(call.result(5), ServerError | Prediction)
            else:
                assert isinstance(call.result(5), ServerTimeout)
            closing.result(5)
        wire.hold.clear()
        with pytest.raises(ValueError, match="closed"):
            client.predict(noise)
