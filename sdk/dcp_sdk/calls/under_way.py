"""The frames of one stream between its source and its caller: who may begin what, what waits, what gives way.

All of it changes under one lock, so that whoever stops the stream stops everything at once. A frame that was begun
never waits for a slow caller before it is answered, only its answer does: otherwise its deadline would pass while
nobody works on it. So what is bounded is the number of frames under way, from the source to the caller. For the same
reason a deadline begins with the frame's turn at the device graph, and stands still until its turn on the network:
what a server answers to ``predict`` in time, it answers in time here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..deadline import Deadline
from ..stats import Counters
from .stages import Request

__all__ = ["NotYet", "Trip", "UnderWay"]

_WAITING = 1
"""Frames that wait before the device graph, and payloads that wait before the network."""
_STALE_S = 0.1
"""An answer of a live source that waited for so long, and longer than it took to make, gives way to a newer one."""


@dataclass(slots=True)
class Trip:
    """A frame that was begun."""

    sequence: int
    """Its position in the stream, from 0."""
    request: Request
    begun: float
    """Value of ``time.monotonic()`` when the device graph's turn came."""
    computed: float = 0.0
    """The same, when its payload began to wait for its turn on the network."""
    answered: float = 0.0
    """The same, when the answer came."""


class NotYet(Exception):
    """The next answer is not there. No error of a source: theirs go through the same door."""


class UnderWay:
    """What the threads of a stream share. Thread-safe; each method that waits ends when the stream is stopped.

    Args:
        counters: Told what is taken, dropped and waiting.
        in_flight: Requests on the network at once.
        notify: Called, from any thread, when there may be news for the caller. It must not wait.
    """

    def __init__(self, counters: Counters, *, in_flight: int, notify: Callable[[], None]) -> None:
        self.live = False
        """Whether the source goes on by itself; set before the first frame."""
        self._counters, self._notify = counters, notify
        # One in the device graph, one that waits before it and after it, and those on the network.
        self._most = self._credit = in_flight + 1 + 2 * _WAITING
        # One lock, but each of those who wait is woken only by what concerns it: up to 16 threads wait for a payload.
        # Whoever handles a signal may hold it already.
        self._lock = threading.RLock()
        self._reader, self._device, self._network, self._caller = (threading.Condition(self._lock) for _ in range(4))
        self._captured: deque[Request] = deque()
        self._computed: deque[Trip] = deque()
        self._answered: dict[int, Trip] = {}
        self._begun = self._given = 0
        self._idle = 0
        """Threads of the network that wait for a payload."""
        self._given_at = time.monotonic()
        self._failure: tuple[int, BaseException] | None = None
        self._exhausted = False
        self._why: Exception | None = None
        self.stopped = False
        """Whether nothing begins any more."""

    # For the caller.

    def wait(self) -> Trip | None:
        """Wait for the next answer, in order; None after the last.

        Raises:
            BaseException: What the first frame that failed met, or what :meth:`stop` was given.
        """
        with self._lock:
            self._caller.wait_for(self._has_news)
            return self._next()

    def poll(self) -> Trip | None:
        """Give the next answer as :meth:`wait` does, without waiting.

        Raises:
            NotYet: It is not there.
            BaseException: As :meth:`wait`.
        """
        with self._lock:
            if not self._has_news():
                raise NotYet
            return self._next()

    def stop(self, why: Exception | None = None) -> None:
        """Begin nothing more, and wake all who wait; the caller gets ``why``."""
        with self._lock:
            if self.stopped:
                return
            self.stopped, self._why = True, why
            unsent = list(self._computed)
            for waiting in (self._captured, self._computed, self._answered):
                waiting.clear()
            self._tell_all()
        for trip in unsent:
            trip.request.end()

    def _has_news(self) -> bool:
        if self.live and not self.stopped:
            self._drop_stale()
        return (
            self.stopped
            or self._given in self._answered
            or (self._failure is not None and self._failure[0] <= self._given)
            or (self._exhausted and self._count() == 0)
        )

    def _next(self) -> Trip | None:
        if self.stopped:
            if self._why is not None:
                raise self._why
            return None
        trip = self._answered.pop(self._given, None)
        if trip is not None:
            self._given_at = time.monotonic()
            self._pass(credit=min(self._most, self._credit + 1))
        elif self._failure is not None and self._failure[0] <= self._given:
            raise self._failure[1]
        return trip

    def _drop_stale(self) -> None:
        """Pass over answers that waited for the caller while newer frames came."""
        while (trip := self._answered.get(self._given)) is not None:
            waited_s = time.monotonic() - max(trip.answered, self._given_at)
            if waited_s <= max(_STALE_S, trip.answered - trip.begun):
                return
            del self._answered[self._given]
            self._counters.add(frames_dropped=1)
            # What nobody will see should not be sent: one frame at a time, until the caller keeps up.
            self._pass(credit=1)

    def _pass(self, *, credit: int) -> None:
        self._given += 1
        self._credit = credit
        self._tell(self._device, self._reader)

    # For the thread that reads the source.

    def may_read(self) -> bool:
        """Wait for room; False when no more is wanted. A live source always has room: what waits gives way."""
        with self._lock:
            self._reader.wait_for(lambda: self._ends() or self.live or self._has_room())
            return not self._ends()

    def captured(self, request: Request, *, missed: int = 0) -> None:
        """Add a frame; ``missed`` are those that a live source dropped before it."""
        with self._lock:
            if self.stopped:
                return
            if self.live:
                missed += len(self._captured)
                self._captured.clear()
            self._captured.append(request)
            self._counters.add(frames_taken=not self.live, frames_dropped=missed)
            self._tell(self._device)

    def exhausted(self) -> None:
        """No frame comes any more."""
        with self._lock:
            self._exhausted = True
            self._tell(self._caller)

    # For the threads of the stages.

    def begin(self) -> Trip | None:
        """Wait for a frame that the device graph may take; None when the stream is stopped."""
        with self._lock:
            self._device.wait_for(lambda: self.stopped or self._may_begin())
            if self.stopped:
                return None
            trip = Trip(self._begun, self._captured.popleft(), time.monotonic())
            self._begun += 1
            trip.request.deadline = Deadline(trip.request.deadline.timeout_s)
            if self.live:  # it is taken now; until now a newer one could have come
                self._counters.add(frames_taken=1)
            self._tell(self._reader)
        trip.request.begin()
        return trip

    def computed(self, trip: Trip) -> None:
        """Add a payload that passed the guard."""
        with self._lock:
            if not self.stopped:
                trip.computed = time.monotonic()
                self._computed.append(trip)
                self._tell(self._network)
                return
        trip.request.end()

    def send(self) -> Trip | None:
        """Wait for a payload to be sent; None when the stream is stopped."""
        with self._lock:
            self._idle += 1
            self._network.wait_for(lambda: self.stopped or self._may_send())
            self._idle -= 1
            if self.stopped:
                return None
            trip = self._computed.popleft()
            trip.request.deadline.postpone(time.monotonic() - trip.computed)
            self._tell(self._device)
            return trip

    def answered(self, trip: Trip) -> None:
        """Add an answer."""
        with self._lock:
            if not self.stopped:
                trip.answered = time.monotonic()
                self._answered[trip.sequence] = trip
                # Where it is not the next one, the caller waits for an earlier one.
                self._tell(*(self._caller,) if trip.sequence == self._given else ())

    def failed(self, error: BaseException, sequence: int | None = None) -> None:
        """Remember what the earliest frame met that failed, or the source after all its frames.

        Those before it are still answered; of those after it nothing more is sent.
        """
        if sequence is None and isinstance(error, Exception):
            self._counters.failed(error)  # the stages count theirs
        with self._lock:
            at = self._begun + len(self._captured) if sequence is None else sequence
            if self._failure is None or at < self._failure[0]:
                self._failure = at, error
            self._tell_all()

    # Under the lock.

    def _may_begin(self) -> bool:
        return (
            bool(self._captured)
            # A payload that a thread is about to take does not wait: the device graph need not, either.
            and len(self._computed) - self._idle < _WAITING
            and self._begun - self._given < self._credit
            and self._is_wanted(self._begun)
        )

    def _may_send(self) -> bool:
        return bool(self._computed) and self._is_wanted(self._computed[0].sequence)

    def _is_wanted(self, sequence: int) -> bool:
        return self._failure is None or sequence < self._failure[0]

    def _has_room(self) -> bool:
        return len(self._captured) < _WAITING and self._count() < self._most

    def _ends(self) -> bool:
        return self.stopped or self._failure is not None

    def _count(self) -> int:
        return len(self._captured) + self._begun - self._given

    def _tell(self, *concerned: threading.Condition) -> None:
        """Wake one thread of each kind: all but those of the network are alone of their kind."""
        self._counters.queued(len(self._captured) + len(self._computed) + len(self._answered))
        for condition in concerned:
            condition.notify()
        if self._caller in concerned:
            self._notify()

    def _tell_all(self) -> None:
        for condition in (self._reader, self._device, self._network, self._caller):
            condition.notify_all()
        self._notify()
