"""What a client has done so far, in numbers: counted as it happens, read whenever somebody asks."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from .predictions import Timings

__all__ = ["BreakerState", "Counters", "Percentiles", "Stats", "stages_of"]

BreakerState = Literal["closed", "open", "half-open"]
"""``closed``: asked as usual; ``open``: left alone; ``half-open``: the next call finds out, or a thread."""

_REMEMBERED = 1024
"""Requests of which the times are kept: some 200 kB."""
_STAGES = tuple(field.name for field in fields(Timings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """How long something took, over several requests."""

    p50_ms: float
    """Median, in milliseconds."""
    p99_ms: float
    """Milliseconds that one request of a hundred exceeded."""

    @classmethod
    def of(cls, times_ms: npt.NDArray[np.float64]) -> Self:
        """Take both from times in milliseconds, one at least."""
        p50, p99 = np.percentile(times_ms, [50, 99]).tolist()
        return cls(p50_ms=p50, p99_ms=p99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a client did since it was made. Numbers only: nothing of a picture, a payload or an answer."""

    predictions: int
    """Pictures that were answered, those of batches and streams included."""
    failures: Mapping[str, int]
    """Requests that raised, by the name of the error's class."""
    hidden_failures: Mapping[str, int]
    """Failures of servers that no caller saw, since a retry, another server or the head on the device gave the answer,
    by the name of the error's class; :class:`CircuitOpen` where a server was left alone."""
    sends: int
    """How often a payload was handed to a connection."""
    retries: int
    """Rounds of attempts after the first, each of which asks once every server that may recover."""
    failovers: int
    """Requests that another server than the first answered."""
    answered_locally: int
    """Pictures that the head in the bundle answered (``on_failure="local"``)."""
    bytes_sent: int
    """Bytes of payload tensors in all :attr:`sends`, without the protocol's framing."""
    frames_taken: int
    """Frames that streams took from their sources to answer them."""
    frames_dropped: int
    """Frames of live sources that gave way to newer ones; see ``PrivateClient.stream``."""
    deepest_queue: int
    """Most frames that waited between the stages of one stream at a moment."""
    breakers: Mapping[str, BreakerState]
    """State of the circuit breaker of each server, by address."""
    stages: Mapping[str, Percentiles]
    """Times by stage (``capture``, ``obfuscate``, ``network``, …, ``total``), over the last 1,024 requests at
    most; empty before the first answer."""

    @property
    def guard_refusals(self) -> int:
        """Requests whose payload was not what the contract says; nothing of them was sent."""
        return self.failures.get("PrivacyGuardError", 0)


class Counters:
    """Counts for one client. Thread-safe, and cheap: a request holds the lock for some microseconds."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may ask for them in the middle of a call
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._hidden: Counter[str] = Counter()
        self._recent: deque[Timings] = deque(maxlen=_REMEMBERED)

    def add(self, **counts: int) -> None:
        """Add to counts, each by its name in :class:`Stats`."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def failed(self, error: Exception) -> None:
        """Count a request that ended in ``error``."""
        with self._lock:
            self._failures[type(error).__name__] += 1

    def hid(self, failures: Mapping[str, int]) -> None:
        """Count what servers failed with in a request that was answered all the same, by the error's class."""
        if failures:  # most requests need no lock
            with self._lock:
                self._hidden.update(failures)

    def answered(self, timings: Timings, *, pictures: int, locally: bool) -> None:
        """Count a request that was answered."""
        with self._lock:
            self._counts["predictions"] += pictures
            self._counts["answered_locally"] += pictures * locally
            self._recent.append(timings)

    def queued(self, depth: int) -> None:
        """Keep the largest ``depth``."""
        if depth > self._counts["deepest_queue"]:  # most calls need no lock
            with self._lock:
                self._counts["deepest_queue"] = max(depth, self._counts["deepest_queue"])

    def read(self, breakers: Mapping[str, BreakerState]) -> Stats:
        """Take all numbers at one moment."""
        with self._lock:
            counts, recent = self._counts.copy(), list(self._recent)
            failures, hidden = dict(self._failures), dict(self._hidden)
        names = {field.name for field in fields(Stats)} - {"failures", "hidden_failures", "breakers", "stages"}
        return Stats(
            **{name: counts[name] for name in names},
            failures=failures,
            hidden_failures=hidden,
            breakers=breakers,
            stages=stages_of(recent),
        )


def stages_of(timings: Sequence[Timings]) -> dict[str, Percentiles]:
    """Tell how long each stage took over some requests, by its name without the unit; nothing of none."""
    if not timings:
        return {}
    times = np.array([[getattr(one, name) for one in timings] for name in _STAGES])
    return {name.removesuffix("_ms"): Percentiles.of(row) for name, row in zip(_STAGES, times, strict=True)}
