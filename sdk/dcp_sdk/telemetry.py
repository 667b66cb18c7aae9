"""OpenTelemetry, for those who ask for it: a trace of each call, and the numbers of ``client.stats()`` as metrics.

A span holds names, times, counts and addresses: nothing of a picture, a payload or an answer, and no message of an
error, since a server can put into its refusal what it was sent. Needs the extra ``[telemetry]``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from .errors import ConfigError
from .events import log
from .stats import BreakerState, Stats
from .transport.base import TRACE_HEADERS

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider, Observation
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["COUNTERS", "Telemetry", "Trace", "Tracing"]

Tracing = Callable[[float], "Trace"]
"""Starts the trace of one call, given the value of ``time.perf_counter()`` when the call began."""

COUNTERS = {
    "predictions": "pictures that were answered",
    "answered_locally": "pictures that the head in the bundle answered",
    "sends": "payloads handed to a connection",
    "retries": "rounds of attempts after the first",
    "failovers": "requests that another server than the first answered",
    "bytes_sent": "bytes of payload tensors in all sends",
    "frames_taken": "frames that streams took to answer them",
    "frames_dropped": "frames that gave way to newer ones",
    "guard_refusals": "requests whose payload the guard refused; nothing of them was sent",
}
"""Metrics ``dcp.NAME``, each the number of that name in :class:`Stats`."""

_STATES: dict[BreakerState, int] = {"closed": 0, "half-open": 1, "open": 2}


class Telemetry:
    """Exports traces and metrics of the clients that it is given to. Make one per process. Thread-safe.

    >>> client = PrivateClient(bundle, server, telemetry=Telemetry())  # doctest: +SKIP

    Args:
        tracer_provider: Where spans go; None takes the global one, which your program sets up.
        meter_provider: Where metrics go; None takes the global one.
        propagate: Send ``traceparent`` along with each payload, so that the server's spans join the trace. The server
            can then tell which calls belong to one trace of yours. Neither ``tracestate`` nor baggage is ever sent.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagate: bool = True,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise ConfigError(
                "telemetry: expected OpenTelemetry, it is not installed. "
                "Run: pip install 'dcp-private-client[telemetry]'."
            ) from error
        self._tracer = trace.get_tracer("dcp_sdk", tracer_provider=tracer_provider)
        self._propagate = propagate
        self._books = _Books()
        meter = metrics.get_meter("dcp_sdk", meter_provider=meter_provider)
        for name, description in COUNTERS.items():
            unit = "By" if name.startswith("bytes") else "1"
            read = self._books.counter(name)
            meter.create_observable_counter(f"dcp.{name}", [read], unit=unit, description=description)
        meter.create_observable_counter(
            "dcp.failures", [self._books.failures], unit="1", description="requests that raised, by the error's class"
        )
        meter.create_observable_counter(
            "dcp.hidden_failures",
            [self._books.hidden_failures],
            unit="1",
            description="failures of servers in requests that were answered all the same, by the error's class",
        )
        meter.create_observable_gauge(
            "dcp.breaker.state",
            [self._books.breakers],
            unit="1",
            description="circuit breaker of a server: 0 closed, 1 half-open, 2 open",
        )

    def watch(self, bundle: str, stats: Callable[[], Stats]) -> Callable[[], None]:
        """Export the numbers of a client until the function that is returned is called; the counts stay."""
        return self._books.add(bundle, stats)

    def tracing(self, bundle: str, provider: str) -> Tracing:
        """Remember the span of whoever calls: traces that are started by the result belong to it."""
        from opentelemetry.context import get_current

        caller = get_current()
        facts = {"dcp.bundle": bundle, "dcp.provider": provider}
        return lambda started: Trace(self._tracer, caller, facts, started, propagate=self._propagate)


class Trace:
    """The spans of one call: ``dcp.predict``, and one below it for each stage."""

    def __init__(
        self, tracer: Tracer, caller: Context, facts: Mapping[str, str], started: float, *, propagate: bool
    ) -> None:
        from opentelemetry.trace import INVALID_SPAN, set_span_in_context

        self._tracer, self._propagate = tracer, propagate
        self._span: Span = INVALID_SPAN
        with _harmless():
            self._span = tracer.start_span("dcp.predict", caller, attributes=facts, start_time=_epoch_ns(started))
        self._inside = set_span_in_context(self._span, caller)

    @contextmanager
    def stage(self, name: str, started: float) -> Iterator[None]:
        """Be in a stage for the length of the block; during ``network`` transports find the headers to send."""
        from opentelemetry.trace import INVALID_SPAN, SpanKind

        kind = SpanKind.CLIENT if name == "network" else SpanKind.INTERNAL
        span: Span = INVALID_SPAN
        headers: dict[str, str] = {}
        with _harmless():
            span = self._tracer.start_span(f"dcp.{name}", self._inside, kind, start_time=_epoch_ns(started))
            headers = _traceparent(span) if name == "network" and self._propagate else {}
        sent = TRACE_HEADERS.set(headers)
        try:
            yield
        except Exception as error:
            with _harmless():
                _fail(span, error)
            raise
        finally:
            TRACE_HEADERS.reset(sent)
            with _harmless():
                span.end()

    def past(self, name: str, started: float, ended: float) -> None:
        """Add a stage that is over, by two values of ``time.perf_counter()``."""
        with _harmless():
            span = self._tracer.start_span(f"dcp.{name}", self._inside, start_time=_epoch_ns(started))
            span.end(_epoch_ns(ended))

    def end(self, facts: Mapping[str, str | int], error: Exception | None = None) -> None:
        """End the call with some attributes, and with ``error`` if that is how it ended."""
        with _harmless():
            for name, value in facts.items():
                self._span.set_attribute(name, value)
            if error is not None:
                _fail(self._span, error)
        with _harmless():  # on its own: a span that is not ended is never exported
            self._span.end()


@contextmanager
def _harmless() -> Iterator[None]:
    """Let no fault of samplers, processors and exporters, which are the program's own, reach a call."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever they raise
        _tell(type(error).__name__)


@cache
def _tell(kind: str) -> None:
    """Log a fault: once, since it comes with every span."""
    log("telemetry_failed", "a tracer failed, and the call goes on: %(error)s", error=kind)


@dataclass
class _Sums:
    """The numbers of one bundle's clients, added up."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    hidden_failures: Counter[str] = field(default_factory=Counter)

    def copy(self) -> _Sums:
        return _Sums(self.counts.copy(), self.failures.copy(), self.hidden_failures.copy())


@dataclass
class _Books:
    """Adds up the numbers of all clients by bundle. They are read when somebody exports, and kept nowhere else."""

    _open: dict[int, tuple[str, Callable[[], Stats]]] = field(default_factory=dict)
    _ended: dict[str, _Sums] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 0

    def add(self, bundle: str, stats: Callable[[], Stats]) -> Callable[[], None]:
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._open[number] = bundle, stats

        def end() -> None:
            with self._lock:
                if self._open.pop(number, None) is not None:
                    _sum_up(self._ended, bundle, stats())

        return end

    def counter(self, name: str) -> Callable[[Any], Iterable[Observation]]:
        return lambda _: [
            _observation(sums.counts[name], {"dcp.bundle": bundle}) for bundle, sums in self._sums().items()
        ]

    def failures(self, _: Any) -> Iterable[Observation]:
        return _by_class({bundle: sums.failures for bundle, sums in self._sums().items()})

    def hidden_failures(self, _: Any) -> Iterable[Observation]:
        return _by_class({bundle: sums.hidden_failures for bundle, sums in self._sums().items()})

    def breakers(self, _: Any) -> Iterable[Observation]:
        with self._lock:
            read = [stats().breakers for _, stats in self._open.values()]
        worst: dict[str, int] = {}
        for breakers in read:
            for address, state in breakers.items():
                worst[address] = max(worst.get(address, 0), _STATES[state])
        return [_observation(value, {"server.address": address}) for address, value in worst.items()]

    def _sums(self) -> dict[str, _Sums]:
        with self._lock:
            sums = {bundle: ended.copy() for bundle, ended in self._ended.items()}
            for bundle, stats in self._open.values():
                _sum_up(sums, bundle, stats())
        return sums


def _sum_up(sums: dict[str, _Sums], bundle: str, stats: Stats) -> None:
    mine = sums.setdefault(bundle, _Sums())
    mine.counts.update({name: getattr(stats, name) for name in COUNTERS})
    mine.failures.update(stats.failures)
    mine.hidden_failures.update(stats.hidden_failures)


def _by_class(failures: Mapping[str, Counter[str]]) -> list[Observation]:
    """Tell how many failures of each class there were, by bundle."""
    return [
        _observation(count, {"dcp.bundle": bundle, "error.type": kind})
        for bundle, kinds in failures.items()
        for kind, count in kinds.items()
    ]


def _observation(value: int, attributes: dict[str, str]) -> Observation:
    from opentelemetry.metrics import Observation

    return Observation(value, attributes)


def _traceparent(span: Span) -> dict[str, str]:
    """Write the header of W3C's Trace Context, without the ``tracestate`` that others may have filled."""
    context = span.get_span_context()
    if not context.is_valid:
        return {}
    return {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}


def _fail(span: Span, error: Exception) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR)


def _epoch_ns(moment: float) -> int:
    """Turn a value of ``time.perf_counter()`` into nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
