"""The client for asyncio: the same answers, and nothing that a cancelled task leaves behind."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest

from dcp_sdk import (
    AsyncPrivateClient,
    BundleError,
    ConfigError,
    DeadlineExceeded,
    FrameError,
    Prediction,
    PrivateClient,
    Retries,
    ServerUnavailable,
    Timeouts,
)
from dcp_sdk.aio import ClientOptions
from dcp_sdk.calls.stages import Request
from dcp_sdk.deadline import Deadline
from dcp_sdk.obfuscate import Payload
from dcp_sdk.preprocess import Image
from tests.sdk.helpers import Recorder, eventually, no_streams
from tests.tiny import KEPT, Tiny


class Held(Recorder):
    """Answers when it is told to, and tells how many ask."""

    def __init__(self, repository: Path) -> None:
        super().__init__(repository)
        self.go = threading.Event()

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        self.sent.append(payload)
        self.go.wait(timeout_s)
        return self._head.infer(payload, timeout_s)


def no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("dcp async")]


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` in a loop of its own; afterwards no thread of the client may be left."""
    asyncio.run(work())
    assert eventually(no_threads)
    assert no_streams() == []


@asynccontextmanager
async def held(tiny: Tiny, **options: Any) -> AsyncIterator[tuple[AsyncPrivateClient, Held]]:
    transport = Held(tiny.repository)
    async with AsyncPrivateClient(tiny.bundle, transport=transport, device="cpu", threads=1, **options) as client:
        try:
            yield client, transport
        finally:
            transport.go.set()


async def soon(condition: Callable[[], bool]) -> bool:
    return await asyncio.to_thread(eventually, condition)


def test_the_same_answers_as_the_client_without_asyncio(tiny: Tiny) -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (20, 40, 50, 3), np.uint8))
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        expected = [client.predict(picture).probabilities for picture in pictures]
        report, manifest, server = client.privacy_report, client.manifest, client.server

    def same(predictions: list[Prediction]) -> bool:
        return all(
            one.probabilities == pytest.approx(other, abs=1e-6)
            for one, other in zip(predictions, expected, strict=True)
        )

    async def work() -> None:
        async with AsyncPrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
            assert same(await asyncio.gather(*map(client.predict, pictures)))
            assert same(await client.predict_batch(iter(pictures)))
            seen: list[int] = []
            streamed = [
                item async for item in client.stream(pictures, observe=lambda _, sent, __: seen.append(len(sent[0][0])))
            ]
            assert same(streamed)
            assert [item.sequence for item in streamed] == list(range(20))
            assert seen == [KEPT] * 20
            assert (client.privacy_report, client.manifest, client.server) == (report, manifest, server)
            assert client.provider == "cpu"
            assert client.stats().predictions == 60
            assert repr(client).startswith("<AsyncPrivateClient 'tiny' on cpu")

    run(work)


def test_waiting_for_a_thread_counts_for_a_batch_as_well(tiny: Tiny, picture: Image) -> None:
    async def work() -> None:
        begun: list[float] = []
        async with AsyncPrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu", workers=1) as client:
            stages = client._client._stages
            capture = stages.capture

            def noting(request: Request, *rest: Any, **options: Any) -> None:
                begun.append(request.deadline.left_s())
                capture(request, *rest, **options)

            stages.capture = noting  # type: ignore[method-assign]
            await client._slots.acquire()
            asyncio.get_running_loop().call_later(0.5, client._slots.release)
            assert len(await client.predict_batch([picture, picture])) == 2
            assert begun[0] < client.timeouts.predict_s - 0.4, "the half second that it waited is gone"

    run(work)


def test_errors_are_those_of_the_client_without_asyncio(tiny: Tiny, picture: Image, tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(BundleError):
            async with AsyncPrivateClient(tmp_path, f"memory://{tiny.repository}"):
                pass
        client = AsyncPrivateClient(tiny.bundle, f"memory://{tiny.repository}")
        with pytest.raises(ConfigError, match="not open"):
            await client.predict(picture)
        async with client:
            with pytest.raises(FrameError):
                await client.predict(picture[..., 0])
            with pytest.raises(FrameError):
                await client.predict_batch([picture, picture[..., 0]])
            with pytest.raises(FrameError):
                _ = [item async for item in client.stream([picture[..., 0]])]
            with pytest.raises(ConfigError, match="camera=0"):
                await client.predict()
        await client.close()
        with pytest.raises(ConfigError, match="closed"):
            await client.predict(picture)
        with pytest.raises(ConfigError, match="closed"):
            _ = [item async for item in client.stream([picture])]

    run(work)


def test_options_that_make_no_sense(tiny: Tiny) -> None:
    with pytest.raises(TypeError, match="colour"):
        AsyncPrivateClient(tiny.bundle, "a:1", colour="red")
    with pytest.raises(ConfigError, match="workers"):
        AsyncPrivateClient(tiny.bundle, "a:1", workers=0)


def test_a_cancelled_task_leaves_at_once_and_the_client_stays_usable(tiny: Tiny, picture: Image) -> None:
    async def work() -> None:
        async with held(tiny, workers=2, timeouts=Timeouts(predict_s=60)) as (client, transport):
            tasks = [asyncio.create_task(client.predict(picture)) for _ in range(6)]
            assert await soon(lambda: len(transport.sent) == 2), "two workers"
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            waiting = asyncio.create_task(client.predict(picture))
            await asyncio.sleep(0.05)
            assert len(transport.sent) == 2, "the threads are at work still; nobody else's payload was sent"
            transport.go.set()
            assert (await waiting).label
            assert len(transport.sent) == 3

    run(work)


def test_a_cancelled_batch_sends_no_further_request(tiny: Tiny, picture: Image) -> None:
    async def work() -> None:
        async with held(tiny, timeouts=Timeouts(predict_s=60)) as (client, transport):
            task = asyncio.create_task(client.predict_batch([picture] * 80))
            assert await soon(lambda: len(transport.sent) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            transport.go.set()
            assert (await client.predict(picture)).label
            await client.close()
            assert len(transport.sent) == 2

    run(work)


def test_waiting_for_a_thread_counts(tiny: Tiny, picture: Image) -> None:
    async def work() -> None:
        async with held(tiny, workers=1, timeouts=Timeouts(predict_s=60)) as (client, transport):
            first = asyncio.create_task(client.predict(picture))
            assert await soon(lambda: len(transport.sent) == 1)
            with pytest.raises(DeadlineExceeded, match="workers"):
                await client._run(Deadline(0.01), client._client._answer, [picture], Deadline(0.01))
            transport.go.set()
            assert (await first).label
            assert client.stats().failures == {"DeadlineExceeded": 1}

    run(work)


@pytest.mark.parametrize("end", ["cancel", "leave", "close"])
def test_a_stream_ends_with_its_task(end: str, tiny: Tiny, picture: Image) -> None:
    """Also while it waits for a source that gives nothing."""
    asked, release = threading.Event(), threading.Event()

    def source() -> Any:
        yield picture
        asked.set()
        release.wait()
        yield picture

    async def work() -> None:
        async with AsyncPrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
            first = asyncio.Event()

            async def follow() -> None:
                async with aclosing(client.stream(source())) as predictions:
                    async for _ in predictions:
                        assert await soon(asked.is_set)
                        first.set()
                        if end == "leave":
                            return

            task = asyncio.create_task(follow())
            await first.wait()
            if end == "close":
                await client.close()
                with pytest.raises(ConfigError, match="closed"):
                    await task
            else:
                if end == "cancel":
                    task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                assert no_streams() == ["dcp stream, capture"], "which the source holds"
                assert (await client.predict(picture)).label
            release.set()
            assert await soon(lambda: no_streams() == [])

    run(work)


def test_a_source_that_would_block_ends_the_stream_with_its_error(tiny: Tiny, picture: Image) -> None:
    """It is no sign that an answer is not there yet."""

    def source() -> Any:
        yield picture
        raise BlockingIOError("mine")

    async def work() -> None:
        async with AsyncPrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
            with pytest.raises(BlockingIOError, match="mine"):
                async for _ in client.stream(source()):
                    pass

    run(work)


def test_opened_twice_at_the_same_time(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client is made, and none is left open."""
    transport = Recorder(tiny.repository)
    connect = Mock(side_effect=transport.connect)
    monkeypatch.setattr(transport, "connect", connect)

    async def work() -> None:
        client = AsyncPrivateClient(tiny.bundle, transport=transport, device="cpu")
        await asyncio.gather(client.open(), client.open())
        with pytest.raises(ConfigError, match="in_flight"):
            client.stream([], in_flight=0)
        await client.close()

    run(work)
    assert (connect.call_count, transport.closed) == (1, 1)


def test_cancelled_while_it_opens(tiny: Tiny) -> None:
    """The client that is made nevertheless is closed."""
    gate, transport = threading.Event(), Recorder(tiny.repository)
    connect = transport.connect

    def slow_connect(contract: Any, timeout_s: float) -> None:
        gate.wait()
        connect(contract, timeout_s)

    transport.connect = slow_connect

    async def work() -> None:
        client = AsyncPrivateClient(tiny.bundle, transport=transport, device="cpu")
        task = asyncio.create_task(client.open())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        assert await soon(lambda: transport.closed == 1)

    run(work)


def test_opened_again_after_it_failed(tiny: Tiny) -> None:
    transport = Recorder(tiny.repository)
    connect = Mock(side_effect=[ServerUnavailable("down"), ServerUnavailable("down"), None])
    served, transport.connect = transport.connect, connect  # type: ignore[method-assign]

    async def work() -> None:
        client = AsyncPrivateClient(tiny.bundle, transport=transport, device="cpu", retries=Retries.none())
        for failed in (1, 2):
            with pytest.raises(ServerUnavailable, match="down"):
                await client.open()
            assert transport.closed == failed
            assert await soon(no_threads), "nothing is left of it"
        served(tiny.manifest.contract, 1)
        async with client:
            assert (await client.predict(np.zeros((40, 50, 3), np.uint8))).label
        with pytest.raises(ConfigError, match="closed"):
            await client.predict(np.zeros((40, 50, 3), np.uint8))
        with pytest.raises(ConfigError, match="closed"):
            await client.open()

    run(work)
    assert transport.closed == 3


def test_opened_again_after_it_was_cancelled(tiny: Tiny, picture: Image) -> None:
    """The first attempt is at work still, with the same transport, which is closed with it: the second waits."""
    gate, transport = threading.Event(), Recorder(tiny.repository)
    calls: list[str] = []
    connect, close = transport.connect, transport.close

    def slow_connect(contract: Any, timeout_s: float) -> None:
        calls.append("connect")
        gate.wait(10)
        connect(contract, timeout_s)

    def noted_close() -> None:
        calls.append("close")
        close()

    transport.connect, transport.close = slow_connect, noted_close  # type: ignore[method-assign]

    async def work() -> None:
        client = AsyncPrivateClient(tiny.bundle, transport=transport, device="cpu")
        for _ in range(2):
            task = asyncio.create_task(client.open())
            assert await soon(lambda: calls == ["connect"])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        asyncio.get_running_loop().call_later(0.1, gate.set)
        async with client:
            assert calls[:2] == ["connect", "close"]
            assert (await client.predict(picture)).label

    run(work)
    assert calls.count("connect") == calls.count("close")


def test_closed_while_it_opens(tiny: Tiny) -> None:
    gate, transport = threading.Event(), Recorder(tiny.repository)
    connect = transport.connect

    def slow_connect(contract: Any, timeout_s: float) -> None:
        gate.wait(10)
        connect(contract, timeout_s)

    transport.connect = slow_connect  # type: ignore[method-assign]

    async def work() -> None:
        client = AsyncPrivateClient(tiny.bundle, transport=transport, device="cpu")
        opening = asyncio.create_task(client.open())
        await asyncio.sleep(0.05)
        asyncio.get_running_loop().call_later(0.05, gate.set)
        await client.close()
        await opening
        assert transport.closed == 1, "none is left open"

    run(work)


def test_closed_before_it_was_opened(tiny: Tiny) -> None:
    async def work() -> None:
        client = AsyncPrivateClient(tiny.bundle, f"memory://{tiny.repository}")
        await client.close()
        with pytest.raises(ConfigError, match="closed"):
            await client.open()

    run(work)


def test_the_types_of_the_options_are_those_of_the_other_client() -> None:
    theirs = inspect.signature(PrivateClient, eval_str=True).parameters.values()
    keywords = {one.name: one.annotation for one in theirs if one.kind is one.KEYWORD_ONLY}
    assert get_type_hints(ClientOptions) == keywords
