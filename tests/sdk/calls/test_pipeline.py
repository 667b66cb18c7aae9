"""Streams whose stages are slow, fail or hang in every position: order, bounds, and no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dcp_sdk import Arrays, ConfigError, Frame, FrameSource, RuntimeUnavailable, Telemetry
from dcp_sdk.calls.pipeline import Pipeline
from dcp_sdk.calls.stages import Request
from dcp_sdk.deadline import Deadline
from dcp_sdk.stats import Counters, Stats
from dcp_sdk.telemetry import Tracing
from tests.sdk.helpers import eventually, no_streams

IMAGE = np.zeros((4, 4, 3), np.uint8)
LATENCIES = st.lists(st.floats(0, 0.004), min_size=1, max_size=6)
"""Seconds that a stage takes; for further frames they come again."""

Work = Callable[[Request], object]


class Live(FrameSource):
    """A source that goes on by itself: ``show`` is the next moment."""

    live = True

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shown: list[int] = []
        self._closed = False
        self._given = 0

    def show(self, index: int) -> None:
        with self._changed:
            self._shown.append(index)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._shown or self._closed)
                if self._closed:
                    return
                index = self._shown.pop(0)
            yield Frame(IMAGE, time.monotonic(), "live", index)
            self._given += 1

    def has_given(self, count: int) -> bool:
        return self._given >= count

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Running:
    """A pipeline over ``source``, and what its stages saw."""

    def __init__(self, pipeline: Pipeline, counters: Counters) -> None:
        self.pipeline, self._counters = pipeline, counters

    @property
    def stats(self) -> Stats:
        return self._counters.read({})

    def rest(self) -> list[int]:
        """Take what is left; the frames' numbers."""
        return list(iter(self.next, None))

    def next(self) -> int | None:
        trip = self.pipeline.wait()
        return None if trip is None else trip.request.frames[0].index


@contextmanager
def running(
    source: FrameSource | Iterator[Any],
    compute: Work = lambda _: None,
    ask: Work = lambda _: None,
    *,
    in_flight: int = 2,
    timeout_s: float = 60,
    tracing: Tracing | None = None,
) -> Iterator[Running]:
    """Run a pipeline of these stages; afterwards no thread of it may be left."""
    ours = not isinstance(source, FrameSource)
    frames = Arrays(source) if ours else source
    counters = Counters()
    pipeline = Pipeline(
        lambda: (frames, True),
        lambda frame, started: Request(Deadline(timeout_s), started, [frame], tracing=tracing),
        compute,
        ask,
        counters,
        in_flight=in_flight,
        join_s=60,
    )
    try:
        yield Running(pipeline, counters)
    finally:
        pipeline.close()
    assert no_streams() == []


def pictures(count: int, wait: Callable[[int], object] = lambda _: None) -> Iterator[np.ndarray]:
    for index in range(count):
        wait(index)
        yield IMAGE


def number(request: Request) -> int:
    return request.frames[0].index


def sleeping(latencies_s: list[float]) -> Callable[[int], None]:
    return lambda index: time.sleep(latencies_s[index % len(latencies_s)])


@given(
    count=st.integers(0, 20),
    in_flight=st.integers(1, 4),
    source=LATENCIES,
    device=LATENCIES,
    network=LATENCIES,
    caller=LATENCIES,
)
@settings(max_examples=40)
def test_every_frame_in_order_whichever_stage_is_slow(
    count: int, in_flight: int, source: list[float], device: list[float], network: list[float], caller: list[float]
) -> None:
    computing, asking = threading.Semaphore(1), threading.Semaphore(in_flight)
    order: list[int] = []

    def compute(request: Request) -> None:
        assert computing.acquire(blocking=False), "one at a time"
        order.append(number(request))
        sleeping(device)(number(request))
        computing.release()

    def ask(request: Request) -> None:
        assert asking.acquire(blocking=False), "no more than in_flight"
        sleeping(network)(number(request))
        asking.release()

    given_out = []
    with running(pictures(count, sleeping(source)), compute, ask, in_flight=in_flight) as stream:
        while (index := stream.next()) is not None:
            given_out.append(index)
            sleeping(caller)(index)
        stats = stream.stats
    assert given_out == order == list(range(count))
    assert (stats.frames_taken, stats.frames_dropped) == (count, 0)
    assert stats.deepest_queue <= in_flight + 3


@given(
    where=st.sampled_from(["source", "device", "network"]),
    at=st.integers(0, 8),
    in_flight=st.integers(1, 4),
    latencies=LATENCIES,
)
@settings(max_examples=40)
def test_those_before_a_failure_are_given_and_nothing_begins_after_it(
    where: str, at: int, in_flight: int, latencies: list[float]
) -> None:
    sent: list[int] = []

    def failing(stage: str) -> Callable[[int], None]:
        def work(index: int) -> None:
            sleeping(latencies)(index + len(stage))
            if (stage, index) == (where, at):
                raise OSError(stage)

        return work

    def ask(request: Request) -> None:
        sent.append(number(request))
        failing("network")(number(request))

    with running(
        pictures(10, failing("source")), lambda r: failing("device")(number(r)), ask, in_flight=in_flight
    ) as stream:
        assert [stream.next() for _ in range(at)] == list(range(at))
        with pytest.raises(OSError, match=where):
            stream.next()
        assert eventually(lambda: len(sent) >= at)
    # Until the request fails, as many may be under way as ever: each thread, and one before and after the device graph.
    limit = at if where != "network" else at + in_flight + 3
    assert sorted(sent) == list(range(len(sent)))
    assert at <= len(sent) <= limit


@given(stop_after=st.integers(0, 6), slow=st.integers(0, 2), latency_s=st.floats(0, 0.02))
@settings(max_examples=30)
def test_a_caller_who_stops_early_leaves_nothing_behind(stop_after: int, slow: int, latency_s: float) -> None:
    pauses = [latency_s * (slow == stage) for stage in range(3)]
    with running(
        pictures(1000, lambda _: time.sleep(pauses[0])),
        lambda _: time.sleep(pauses[1]),
        lambda _: time.sleep(pauses[2]),
    ) as stream:
        assert [stream.next() for _ in range(stop_after)] == list(range(stop_after))


def test_nothing_is_read_faster_than_it_is_taken() -> None:
    read: list[int] = []

    def reached(count: int) -> bool:
        return len(read) == count

    with running(pictures(100, read.append), in_flight=2) as stream:
        for taken in range(10):
            assert eventually(partial(reached, taken + 5))
            time.sleep(0.02)
            assert len(read) == taken + 5, "in_flight, one in the device graph, one before it and one after it"
            assert stream.next() == taken


def test_a_slow_caller_makes_no_frame_late() -> None:
    late: list[int] = []

    def ask(request: Request) -> None:
        if request.deadline.left_s() == 0:
            late.append(number(request))

    with running(pictures(12), ask=ask, timeout_s=0.3) as stream:
        for index in range(3):
            assert stream.next() == index
            time.sleep(0.4)
        assert stream.rest() == list(range(3, 12))
    assert late == []


@pytest.mark.parametrize("in_flight", [1, 2])
def test_waiting_for_its_turn_makes_no_frame_late(in_flight: int) -> None:
    """Each has as much time for the network as ``predict`` would leave it."""
    left_s: list[float] = []

    def ask(request: Request) -> None:
        left_s.append(request.deadline.left_s())
        time.sleep(0.4)

    with running(pictures(8), ask=ask, in_flight=in_flight, timeout_s=1) as stream:
        assert stream.rest() == list(range(8))
    assert min(left_s) > 0.75


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_source_that_blocks_for_ever(end: str) -> None:
    """The caller is woken, the stages end, and the thread that the source holds ends when it lets go."""
    asked, release = threading.Event(), threading.Event()

    def hold(index: int) -> None:
        if index == 2:
            asked.set()
            release.wait()

    with running(pictures(5, hold)) as stream:
        assert [stream.next(), stream.next()] == [0, 1]
        assert asked.wait(30)
        met: list[BaseException | int | None] = []

        def wait() -> None:
            try:
                met.append(stream.next())
            except ConfigError as error:
                met.append(error)

        caller = threading.Thread(target=wait)
        caller.start()
        why = ConfigError("closed")
        if end == "stop":
            stream.pipeline.stop(why)
        else:
            stream.pipeline.close()
            assert no_streams() == ["dcp stream, capture"]
        caller.join(30)
        assert met == [why if end == "stop" else None]
        release.set()
        assert eventually(lambda: no_streams() == [])


def test_a_source_that_opens_after_the_end_is_closed() -> None:
    opened, closed = threading.Event(), threading.Event()

    class Late(Arrays):
        def close(self) -> None:
            closed.set()

    def open_source() -> tuple[FrameSource, bool]:
        opened.wait()
        return Late([]), True

    pipeline = Pipeline(
        open_source, lambda frame, started: pytest.fail(), pytest.fail, pytest.fail, Counters(), in_flight=1, join_s=9
    )
    pipeline.stop()
    opened.set()
    assert closed.wait(30)
    pipeline.close()
    assert no_streams() == []


def test_a_source_that_ends_the_stream_itself() -> None:
    """Somebody's generator runs in the reading thread, and may close the very client that reads it."""
    holder: list[Pipeline] = []
    ready = threading.Event()

    def close(index: int) -> None:
        if index == 1:
            ready.wait()
            holder[0].close()

    with running(pictures(5, close)) as stream:
        holder.append(stream.pipeline)
        ready.set()
        assert set(stream.rest()) <= {0}


def test_of_a_live_source_the_newest_frame_wins() -> None:
    source, go = Live(), threading.Semaphore(0)
    with running(source, compute=lambda _: go.acquire(), in_flight=1) as stream:
        source.show(0)
        assert eventually(lambda: stream.stats.frames_taken == 1)
        for index in range(1, 10):
            source.show(index)
        assert eventually(lambda: stream.stats.frames_dropped == 8)
        go.release(2)
        assert [stream.next(), stream.next()] == [0, 9]
        source.show(20)  # the source dropped ten itself, as its numbers say
        go.release()
        assert stream.next() == 20
        stats = stream.stats
        assert (stats.frames_taken, stats.frames_dropped) == (3, 18)


def test_an_answer_that_waits_too_long_gives_way() -> None:
    """While the caller is busy, a few frames are answered at the most; back, it gets a frame of now."""
    source = Live()
    with running(source, in_flight=1) as stream:
        source.show(0)
        assert stream.next() == 0
        for index in range(1, 30):
            source.show(index)
            assert eventually(partial(source.has_given, index))
        answered = stream.stats.frames_taken
        assert answered <= 1 + 4, "in_flight, one in the device graph, one before it and one after it"
        time.sleep(0.15)
        assert stream.next() == 29
        stats = stream.stats
        assert stats.frames_taken + stats.frames_dropped >= 30
        assert stats.frames_taken == answered + 1
        assert stats.frames_dropped == 30 - 2, "all but the first and the last, sent in vain or not"


@pytest.mark.parametrize("live", [False, True])
def test_frames_that_give_way_leave_no_span_without_its_parent(live: bool) -> None:
    spans, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    tracing = Telemetry(tracer_provider=tracers).tracing("tiny", "cpu")
    source = Live() if live else Arrays(pictures(20))
    held = threading.Event()
    computed: list[Request] = []

    def ask(request: Request) -> None:
        held.wait()
        request.end()

    with running(source, computed.append, ask, in_flight=1, tracing=tracing) as stream:
        for index in range(8 * live):
            source.show(index)
            assert eventually(partial(source.has_given, index))
        assert eventually(lambda: len(computed) == 2), "one on the network, and one that waits for its turn there"
        stream.pipeline.stop()
        held.set()
    finished = spans.get_finished_spans()
    calls = {span.context.span_id: span for span in finished if span.name == "dcp.predict"}
    captured = [span for span in finished if span.name == "dcp.capture"]
    assert len(captured) == len(calls) == 2
    assert all(span.parent is not None and span.parent.span_id in calls for span in captured)
    assert all(span.end_time - span.start_time < 1e9 for span in captured), "waiting for its turn is no capture"


class Broken(SpanProcessor):
    """Fails with every span, as one that has lost its exporter may."""

    def on_start(self, span: object, parent_context: object = None) -> None:
        raise RuntimeError("no exporter")

    on_end = on_start  # type: ignore[assignment]


def test_tracing_that_fails_fails_no_frame(caplog: pytest.LogCaptureFixture) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(Broken())
    with running(iter([IMAGE] * 5), tracing=Telemetry(tracer_provider=tracers).tracing("tiny", "cpu")) as stream:
        assert len(stream.rest()) == 5
    told = [record for record in caplog.records if record.__dict__.get("dcp_event") == "telemetry_failed"]
    assert [record.__dict__["dcp_error"] for record in told] == ["RuntimeError"], "once"


def test_a_thread_that_ends_ends_the_stream() -> None:
    def tracing(_: float) -> Any:
        raise LookupError("no trace")

    with running(iter([IMAGE] * 5), tracing=tracing) as stream, pytest.raises(LookupError):
        stream.rest()


def test_no_stream_begins_without_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were started end again."""
    start, few = threading.Thread.start, iter(range(2))

    def two_more(thread: threading.Thread) -> None:
        if next(few, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", two_more)
    with pytest.raises(RuntimeUnavailable, match="thread"), running(pictures(3)):
        pass
    assert eventually(lambda: no_streams() == [])


def test_a_buffer_that_is_used_again_gives_each_picture() -> None:
    def camera() -> Iterator[Any]:
        buffer = np.zeros((4, 4, 3), np.uint8)
        for level in range(12):
            buffer[:] = level
            yield buffer if level % 2 else Frame(buffer, time.monotonic(), "camera", level)

    seen: list[int] = []

    def compute(request: Request) -> None:
        time.sleep(0.01)  # the source is ahead
        seen.append(int(request.frames[0].image_rgb[0, 0, 0]))

    with running(camera(), compute) as stream:
        assert len(stream.rest()) == 12
    assert seen == list(range(12))
