"""The client for asyncio: the same stages and servers, in threads of its own, so that the event loop never waits."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from os import PathLike
from types import TracebackType
from typing import Any, Self, SupportsIndex, TypedDict, TypeVar, Unpack

from .bundles.manifest import Manifest
from .bundles.privacy_report import PrivacyReport
from .bundles.signing_keys import KeySource
from .calls.gate import Gate
from .calls.pipeline import check_in_flight
from .calls.under_way import NotYet
from .camera import Camera
from .client import Observer, PrivateClient
from .config import CircuitBreaker, Device, OnFailure, Retries, ServerAddress, Timeouts, check_kinds
from .deadline import Deadline
from .errors import ConfigError, DeadlineExceeded
from .frames import FrameLike
from .predictions import Prediction
from .runtime import Provider
from .security import Security
from .sources import SourceLike
from .stats import Stats
from .telemetry import Telemetry
from .tracebacks import forgetful
from .transport import Transport

__all__ = ["AsyncPrivateClient", "ClientOptions"]

T = TypeVar("T")


class ClientOptions(TypedDict, total=False):
    """The keyword-only options of :class:`PrivateClient`, for the types of those who pass them on."""

    device: Device
    threads: int | None
    cuda_graph: bool
    timeouts: Timeouts
    retries: Retries
    breaker: CircuitBreaker
    security: Security | None
    on_failure: OnFailure
    headers: Mapping[str, str] | None
    trusted_keys: Sequence[KeySource] | None
    transport: Transport | None
    telemetry: Telemetry | None
    camera: int | str | Camera | None


class AsyncPrivateClient:
    """A :class:`PrivateClient` whose calls are awaited. For one event loop; its tasks may call it at the same time.

    ``async with`` opens it, since opening reads files and asks a server. A task that is cancelled stops waiting at
    once. What it began ends by its deadline, in a thread that is free for others then, and its answer is dropped.

    >>> async with AsyncPrivateClient("bundles/gender", "grpc://localhost:8001") as client:  # doctest: +SKIP
    ...     print((await client.predict("face.jpg")).label)

    Args:
        bundle: As :class:`PrivateClient` takes it.
        server: As :class:`PrivateClient` takes it.
        workers: Calls that are at work at the same time, each in a thread; further ones wait, and their deadlines
            with them. A stream is not one of them.
        options: All other options of :class:`PrivateClient`.

    Raises:
        ConfigError: ``workers`` is less than 1.
        TypeError: :class:`PrivateClient` has no such option.
    """

    def __init__(
        self,
        bundle: str | PathLike[str],
        server: str | ServerAddress | Sequence[str | ServerAddress] | None = None,
        *,
        workers: int = 8,
        **options: Unpack[ClientOptions],
    ) -> None:
        check_kinds(workers=(workers, int))
        if workers < 1:
            raise ConfigError(f"workers: expected at least 1, got {workers}.")
        inspect.signature(PrivateClient).bind(bundle, server, **options)
        self._make: Callable[[], PrivateClient] = lambda: PrivateClient(bundle, server, **options)
        self._workers = workers
        self._slots = asyncio.Semaphore(workers)
        self._opening = asyncio.Lock()
        self._pool = self._new_pool()
        self._given_up: ThreadPoolExecutor | None = None
        """Of an attempt to open it that failed or was cancelled; its thread may be at work still."""
        self._opened: PrivateClient | None = None

    async def open(self) -> Self:
        """Open the bundle and reach the server, as ``async with`` does. May be tried again after it failed.

        Raises:
            ConfigError: The client was closed.
            DCPError: As :class:`PrivateClient` when it is made.
        """
        async with self._opening:
            if self._opened is None:
                await self._open()
            else:
                self._opened._gate.check()
        return self

    async def _open(self) -> None:
        making = self._submit(self._make_after, self._given_up)
        try:
            self._opened = await asyncio.wrap_future(making)
        except BaseException:
            making.add_done_callback(_close)
            self._given_up, self._pool = self._pool, self._new_pool()
            self._given_up.shutdown(wait=False)
            raise

    def _make_after(self, given_up: ThreadPoolExecutor | None) -> PrivateClient:
        """Make the client once nothing is left of the last attempt: a transport of the caller is closed with it."""
        if given_up is not None:
            given_up.shutdown()
        return self._make()

    def _new_pool(self) -> ThreadPoolExecutor:
        # Besides those who work there are those who wait for the end of a stream or of the client.
        return ThreadPoolExecutor(2 * self._workers, thread_name_prefix="dcp async")

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest; ``manifest.contract`` says what leaves the device."""
        return self._client.manifest

    @property
    def privacy_report(self) -> PrivacyReport | None:
        """What was measured of this very bundle; None if nothing was. Look at ``privacy_report.protected``."""
        return self._client.privacy_report

    @property
    def timeouts(self) -> Timeouts:
        """How long a request may take in all."""
        return self._client.timeouts

    @property
    def provider(self) -> Provider:
        """What the device graph really runs on: ``cpu``, ``cuda`` or ``tensorrt``."""
        return self._client.provider

    @property
    def server(self) -> str:
        """Address of the task head; of several, in the order in which they are asked, with commas between."""
        return self._client.server

    def stats(self) -> Stats:
        """Tell what this client did so far, in numbers. Does not wait."""
        return self._client.stats()

    @forgetful
    async def predict(self, frame: FrameLike | None = None) -> Prediction:
        """Answer for one picture, as :meth:`PrivateClient.predict` does. Waiting for a thread counts, too.

        Raises:
            DCPError: As :meth:`PrivateClient.predict`.
        """
        client = self._client
        deadline = Deadline(client.timeouts.predict_s)
        return (await self._run(deadline, client._answer, [frame], deadline))[0]

    @forgetful
    async def predict_batch(
        self, frames: Iterable[FrameLike], *, batch_size: SupportsIndex | None = None
    ) -> list[Prediction]:
        """Answer for many pictures, as :meth:`PrivateClient.predict_batch` does; ``frames`` is read in a thread.

        Raises:
            DCPError: As :meth:`PrivateClient.predict_batch`.
        """
        client = self._client
        predictions: list[Prediction] = []
        deadline = Deadline(client.timeouts.predict_s)
        # Waiting for a thread counts: the request goes on with the deadline that its wait began with.
        requests = client._batches(frames, batch_size, lambda: deadline)
        while batch := await self._run(deadline, next, requests, []):
            predictions += batch
            deadline = Deadline(client.timeouts.predict_s)
        return predictions

    def stream(
        self, source: SourceLike | None = None, *, in_flight: int = 2, observe: Observer | None = None
    ) -> AsyncGenerator[Prediction, None]:
        """Answer for one frame after the other, as :meth:`PrivateClient.stream` does; ``source`` is read in a thread.

        End it with ``aclosing`` where a task may leave the loop early: its threads end then, not when it is collected.

        Raises:
            DCPError: As :meth:`PrivateClient.stream`.
        """
        check_in_flight(in_flight)
        return self._stream(source, in_flight, observe)

    async def _stream(
        self, source: SourceLike | None, in_flight: int, observe: Observer | None
    ) -> AsyncGenerator[Prediction, None]:
        client, loop, news = self._client, asyncio.get_running_loop(), asyncio.Event()
        pipeline = client._start(source, in_flight, lambda: _soon(loop, news.set))
        del source  # an error's traceback would show it
        try:
            while True:
                news.clear()
                try:
                    trip = pipeline.poll()
                except NotYet:
                    await news.wait()
                    continue
                if trip is None:
                    return
                yield client._finish(trip, observe)
                client._gate.check_process()
        finally:
            if client._gate.is_ours:
                pipeline.stop()
                with suppress(ConfigError):  # the client was closed, and ended the stream itself
                    await asyncio.shield(asyncio.wrap_future(self._submit(client._end, pipeline)))

    async def close(self) -> None:
        """Let calls end by their deadlines, then close connections and the camera opened here.

        Streams end with :class:`ConfigError`, and so do later calls. May be called twice. Does nothing in a process
        that did not open the client.
        """
        async with self._opening:  # what another task opens at this moment would stay open
            if self._opened is None:
                self._pool.shutdown(wait=False)
            elif self._opened._gate.is_ours:
                with suppress(ConfigError):  # closed before
                    closing = self._submit(self._opened.close)
                    closing.add_done_callback(lambda _: self._pool.shutdown(wait=False))
                    await asyncio.shield(asyncio.wrap_future(closing))

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return "<AsyncPrivateClient, not open>" if self._opened is None else f"<Async{repr(self._opened)[1:]}"

    @property
    def _client(self) -> PrivateClient:
        if self._opened is None:
            raise ConfigError("the client is not open. Use it inside `async with AsyncPrivateClient(…) as client`.")
        return self._opened

    async def _run(self, deadline: Deadline, work: Callable[..., T], *arguments: Any) -> T:
        """Let a thread work. Whoever is cancelled leaves; the thread stays occupied until its work has ended."""
        self._client._gate.check_process()
        loop, left_s = asyncio.get_running_loop(), deadline.left_s()
        try:
            async with asyncio.timeout(left_s):
                await self._slots.acquire()
        except TimeoutError:
            error = self._too_late(deadline)
            self._client._counters.failed(error)
            raise error from None
        try:
            working = self._submit(work, *arguments)
        except BaseException:
            self._slots.release()
            raise
        working.add_done_callback(lambda _: _soon(loop, self._slots.release))
        return await asyncio.wrap_future(working)

    def _submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        try:
            # A copy of the caller's context: its span, if it has one, is that of the call in the thread.
            return self._pool.submit(copy_context().run, work, *arguments)
        except RuntimeError:  # the pool is shut
            raise Gate.error() from None

    def _too_late(self, deadline: Deadline) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"expected one of {self._workers} threads within {deadline.timeout_s:.3g} s, all were at work. Nothing was "
            "sent. Call less at a time, or allow more with AsyncPrivateClient(workers=…)."
        )


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(call)


def _close(made: Future[PrivateClient]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().close()
