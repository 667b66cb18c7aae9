"""The threads of a stream: capture, device graph and network work at the same time, each on another frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from .._at_exit import close_at_exit
from ..aside import no_thread
from ..errors import ConfigError, FrameError
from ..frames import Frame, FrameSource
from ..stats import Counters
from ..tracebacks import forget_locals
from .stages import Request
from .under_way import Trip, UnderWay

__all__ = ["Pipeline", "check_in_flight"]

_SOURCE_S = 0.5
"""How long the end of a stream waits for somebody's source that does not give its next frame."""
_LARGEST_IN_FLIGHT = 16
_NOTHING: Any = object()


def check_in_flight(in_flight: int) -> None:
    """Make sure that so many requests can be on the network at once.

    Raises:
        ConfigError: ``in_flight`` is not from 1 to 16.
    """
    if not isinstance(in_flight, int) or not 1 <= in_flight <= _LARGEST_IN_FLIGHT:
        raise ConfigError(f"in_flight: expected from 1 to {_LARGEST_IN_FLIGHT} requests, got {in_flight!r}.")


class Pipeline:
    """Takes frames from a source and gets each answered. Thread-safe; its threads work from the start.

    A live source is read all the time, and only its newest frame waits; the others are dropped and counted. Any other
    is read one frame ahead. A frame's deadline begins when the device graph takes it, and stands still while its
    payload waits for a thread of the network.

    Args:
        open_source: Opens the source, in the thread that reads it, and says whether the pipeline is to close it.
        take: Makes a request of a frame; the number is that of ``time.perf_counter()`` when the source was asked.
        compute: The device's stage.
        ask: The network's stage.
        counters: Told what is taken, dropped and waiting.
        in_flight: Requests on the network at once, at the most, as :func:`check_in_flight` takes it.
        join_s: Seconds that a stage takes at the most, for :meth:`close`.
        notify: Called, from any thread, when :meth:`poll` may have news. It must not wait.

    Raises:
        RuntimeUnavailable: Not enough threads can be had.
    """

    def __init__(
        self,
        open_source: Callable[[], tuple[FrameSource, bool]],
        take: Callable[[Frame, float], Request],
        compute: Callable[[Request], None],
        ask: Callable[[Request], None],
        counters: Counters,
        *,
        in_flight: int,
        join_s: float,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_source, self._take, self._join_s = open_source, take, join_s
        self._frames = UnderWay(counters, in_flight=in_flight, notify=notify)
        self.wait, self.poll, self.stop = self._frames.wait, self._frames.poll, self._frames.stop
        self._owning = threading.Lock()
        self._source: FrameSource | None = None
        frames = self._frames
        self._reader = _thread("capture", self._read)
        self._workers = [_thread("device graph", self._work, frames.begin, compute, frames.computed)]
        self._workers += [_thread("network", self._work, frames.send, ask, frames.answered) for _ in range(in_flight)]
        close_at_exit(self)
        try:
            for thread in (self._reader, *self._workers):
                thread.start()
        except RuntimeError as error:
            self.close()
            raise no_thread("for each part of the stream") from error

    def close(self) -> None:
        """Stop, close the source if it was opened here, and wait for the threads. May be called twice.

        A stage ends by its frame's deadline. A source of somebody else that gives no frame is not waited for: the
        thread that reads it ends as soon as it gives one.
        """
        self.stop()
        with self._owning:
            source, self._source = self._source, None
        if source is not None:
            source.close()
        end = time.monotonic() + self._join_s
        for thread in self._workers:
            _join(thread, end - time.monotonic())
        _join(self._reader, _SOURCE_S)

    def _read(self) -> None:
        try:
            source, ours = self._open_source()
            self._frames.live = source.live
            with self._owning:
                if ours and not self._frames.stopped:
                    self._source, ours = source, False
            if ours:  # the stream was stopped while the source opened
                source.close()
            else:
                frames = iter(source)
                try:
                    self._read_frames(frames)
                finally:
                    if isinstance(frames, Generator):  # what a source that is its own iterator holds is its owner's
                        frames.close()  # a video's file is let go in the thread that reads it
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            forget_locals(error)
            self._frames.failed(error)
        self._frames.exhausted()

    def _read_frames(self, frames: Iterator[Frame]) -> None:
        index: int | None = None
        while self._frames.may_read():
            start = time.perf_counter()
            frame = next(frames, _NOTHING)
            if frame is _NOTHING:
                return
            if not isinstance(frame, Frame):
                raise FrameError(
                    f"expected a source that gives dcp_sdk.Frame, got {type(frame).__name__}. Give Frame(array), or "
                    "stream from an iterable of arrays."
                )
            request = self._take(frame, start)
            request.lap("capture_ms")
            # A camera drops frames itself; its numbers tell how many.
            missed = max(0, frame.index - index - 1) if self._frames.live and index is not None else 0
            index = frame.index
            self._frames.captured(request, missed=missed)

    def _work(
        self, take: Callable[[], Trip | None], stage: Callable[[Request], None], give: Callable[[Trip], None]
    ) -> None:
        try:
            while (trip := take()) is not None:
                try:
                    stage(trip.request)
                except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                    forget_locals(error)
                    self._frames.failed(error, trip.sequence)
                else:
                    give(trip)
        except BaseException as error:  # noqa: BLE001 - likewise: without this thread the caller would wait for ever
            self.stop(error if isinstance(error, Exception) else RuntimeError("a thread of the stream ended"))


def _thread(name: str, work: Callable[..., None], *arguments: Any) -> threading.Thread:
    # Daemons: a source that never returns must not keep the process from ending.
    return threading.Thread(target=work, args=arguments, name=f"dcp stream, {name}", daemon=True)


def _join(thread: threading.Thread, timeout_s: float) -> None:
    # One that could not be started has no number; and a source of somebody may close the client itself.
    if thread.ident is not None and thread is not threading.current_thread():
        thread.join(max(0.0, timeout_s))
