"""Streams and the client for asyncio against a real Triton and a broken wire: typed ends, no thread left, no leak."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from dcp_sdk import (
    AsyncPrivateClient,
    CircuitOpen,
    ConfigError,
    DCPError,
    DeadlineExceeded,
    Prediction,
    PrivateClient,
    Retries,
    ServerError,
    ServerTimeout,
    Timeouts,
)
from dcp_sdk.preprocess import Image
from tests.e2e import fault as faults
from tests.e2e.bodies import only_payloads_left
from tests.e2e.fault import FAULTS, HARMLESS
from tests.e2e.secrets import Secrets, secrets_of
from tests.e2e.tap import Tap
from tests.sdk.helpers import eventually, no_streams
from tests.tiny import Tiny

pytestmark = [pytest.mark.triton, pytest.mark.parametrize("scheme", ["grpc", "http"])]

PREDICT_S = 1.5
TIMEOUTS = Timeouts(connect_s=5, predict_s=PREDICT_S)


def connect(tiny: Tiny, scheme: str, wire: Tap, **options: Any) -> PrivateClient:
    address = f"{scheme}://127.0.0.1:{wire.port}"
    return PrivateClient(tiny.bundle, address, device="cpu", timeouts=TIMEOUTS, **options)


def test_a_stream_answers_as_predict_does_and_sends_payloads_alone(
    scheme: str,
    wire: Tap,
    tiny: Tiny,
    noise: Image,
    secrets: Secrets,
) -> None:
    pictures = [np.roll(noise, 3 * shift, axis=1) for shift in range(12)]
    with connect(tiny, scheme, wire) as client:
        expected = [client.predict(picture).probabilities for picture in pictures]
        before = only_payloads_left(wire, tiny, secrets)
        for in_flight in (1, 4):
            streamed = list(client.stream(pictures, in_flight=in_flight))
            assert [item.sequence for item in streamed] == list(range(12))
            assert [item.probabilities for item in streamed] == [pytest.approx(one, abs=1e-6) for one in expected]
            assert all(item.frame_age_ms >= 0 and item.sends == 1 for item in streamed)
    for picture in pictures:
        left = only_payloads_left(wire, tiny, secrets_of(tiny.bundle, tiny.manifest.contract, picture))
        assert left == before + 24
    assert no_streams() == []


@pytest.mark.parametrize("name", sorted(set(FAULTS) - HARMLESS))
def test_a_fault_in_the_middle_of_a_stream(
    name: str,
    scheme: str,
    wire: Tap,
    tiny: Tiny,
    noise: Image,
    secrets: Secrets,
) -> None:
    """Answers that came before are given, then the fault's error; the same client streams again afterwards."""
    kind, errors = FAULTS[name]
    broken = kind()
    with connect(tiny, scheme, wire, retries=Retries.none()) as client:
        given: list[Prediction] = []
        stream = client.stream([noise] * 10_000)
        # Two answers at once make other noise than one: it may look like the beginning of something longer.
        with pytest.raises((*errors, ServerTimeout)):
            for prediction in stream:
                given.append(prediction)
                if len(given) == 3:
                    wire.fault = broken
        assert no_streams() == []
        assert list(stream) == []
        assert [item.sequence for item in given] == list(range(len(given)))
        assert 3 <= len(given) <= 3 + 5, "what was answered before the fault"
        wire.fault = faults.Fault()
        if isinstance(broken, faults.SlowReply):
            broken.over.set()
        wire.cut()
        assert eventually(lambda: answers(client, noise))
        assert len(list(client.stream([noise] * 5))) == 5
    only_payloads_left(wire, tiny, secrets)


def answers(client: PrivateClient, picture: Image) -> bool:
    try:
        return bool(client.predict(picture).label)
    except ServerError:
        return False


def test_closed_by_another_thread_while_a_server_says_nothing(
    scheme: str,
    wire: Tap,
    tiny: Tiny,
    noise: Image,
) -> None:
    client = connect(tiny, scheme, wire)
    met: list[DCPError] = []

    def follow() -> None:
        try:
            for _ in client.stream([noise] * 100):
                wire.fault = faults.HalfOpen()
        except DCPError as error:
            met.append(error)

    caller = threading.Thread(target=follow)
    caller.start()
    assert eventually(lambda: isinstance(wire.fault, faults.HalfOpen))
    client.close()
    assert no_streams() == [], "closing waits for the requests that are under way, each until its deadline"
    caller.join(30)
    assert [type(error) for error in met] == [ConfigError]


def test_the_event_loop_goes_on_while_a_server_says_nothing(
    scheme: str,
    wire: Tap,
    tiny: Tiny,
    noise: Image,
) -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    async def work() -> None:
        address = f"{scheme}://127.0.0.1:{wire.port}"
        async with AsyncPrivateClient(
            tiny.bundle, address, device="cpu", timeouts=TIMEOUTS, retries=Retries.none(), workers=4
        ) as client:
            assert (await client.predict(noise)).label
            heart = asyncio.create_task(beat())
            wire.fault = faults.HalfOpen()
            # More than there are workers; some are cancelled, a batch and a stream hang, too.
            calls = [asyncio.create_task(client.predict(noise)) for _ in range(6)]
            calls.append(asyncio.create_task(client.predict_batch([noise] * 3)))
            calls.append(asyncio.create_task(follow(client)))
            await asyncio.sleep(0.2)
            calls[0].cancel()
            before = beats
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert beats - before > 20, "about a hundred on a quiet machine"
            assert isinstance(outcomes[0], asyncio.CancelledError)
            assert {type(outcome) for outcome in outcomes[1:]} <= {ServerTimeout, CircuitOpen, DeadlineExceeded}
            wire.fault = faults.Fault()
            wire.cut()
            for _ in range(100):
                try:
                    assert (await client.predict(noise)).label
                    break
                except ServerError:
                    await asyncio.sleep(0.05)
            assert len([item async for item in client.stream([noise] * 5)]) == 5
            heart.cancel()

    async def follow(client: AsyncPrivateClient) -> None:
        async for _ in client.stream([noise] * 5):
            pass

    asyncio.run(work())
    assert no_streams() == []
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("dcp async")])
