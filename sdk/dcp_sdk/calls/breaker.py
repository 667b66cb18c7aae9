"""Leave a server alone that keeps failing, and find out soon when it is back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pybreaker

from ..config import CircuitBreaker
from ..errors import CircuitOpen, ContractMismatch, ServerError, ServerTimeout, ServerUnavailable
from ..events import log
from ..stats import BreakerState

__all__ = ["TRANSIENT", "Breaker"]

TRANSIENT = (ServerUnavailable, ServerTimeout)
"""Failures that may pass by themselves. All others say that a server is there, and that somebody must mend it."""


class Breaker:
    """Counts the failures of one server. Thread-safe; the calls themselves run at the same time.

    Args:
        address: The server's, for messages.
        options: How many failures, and how long a pause.
    """

    def __init__(self, address: str, options: CircuitBreaker) -> None:
        self._address = address
        self._options = options
        self._lock = threading.Lock()
        self._probe_until = 0.0
        self._last = ""
        self._told = True
        """Whether the log says so: closed."""
        self._storage = _SteadyStorage(pybreaker.STATE_CLOSED)
        self._circuit = pybreaker.CircuitBreaker(
            fail_max=options.failures,
            reset_timeout=options.pause_s,
            exclude=[lambda error: not isinstance(error, TRANSIENT)],
            state_storage=self._storage,
            throw_new_error_on_trip=False,
        )

    @property
    def is_closed(self) -> bool:
        """Whether the server is asked as usual."""
        return bool(self._circuit.current_state == pybreaker.STATE_CLOSED)

    @property
    def state(self) -> BreakerState:
        """What the next call meets."""
        if self.is_closed:
            return "closed"
        return "open" if self._storage.age_s() < self._options.pause_s else "half-open"

    def left_alone(self) -> CircuitOpen:
        """Return what a call gets that is not to ask the server."""
        trying = self._circuit.current_state == pybreaker.STATE_HALF_OPEN
        left_s = self._probe_until - time.monotonic() if trying else self._options.pause_s - self._storage.age_s()
        return self._open_error(left_s)

    def distrust(self) -> None:
        """Let one failure be enough to leave the server alone again, until a call was answered."""
        with self._lock:
            for _ in range(self._options.failures - 1 if self.is_closed else 0):
                self._storage.increment_counter()

    @contextmanager
    def guarding(self, trial_s: float) -> Iterator[None]:
        """Run the block unless the server is to be left alone, and remember how it ended.

        Args:
            trial_s: Seconds for which no other call tries the server, if this one finds out whether it is back.

        Raises:
            CircuitOpen: It is to be left alone.
        """
        with self._lock:
            if not self.is_closed:
                self._admit(trial_s)
        try:
            yield
        except (ServerError, ContractMismatch) as error:
            if isinstance(error, TRANSIENT):
                self._last = type(error).__name__
            self._remember(error)
            raise
        except BaseException:  # Ctrl-C, or this device's own trouble, says nothing of the server: the next call tries
            self._probe_until = 0.0
            raise
        if not self._is_calm():
            self._remember(None)

    def _is_calm(self) -> bool:
        """Whether the last call was answered: then another answer is nothing to remember."""
        return self.is_closed and not self._storage.counter

    def _admit(self, trial_s: float) -> None:
        """Let one call in after a pause; raise CircuitOpen for all others."""
        if self.state == "open":
            raise self.left_alone()
        if self._circuit.current_state == pybreaker.STATE_OPEN:
            self._circuit.half_open()
        elif time.monotonic() < self._probe_until:
            raise self.left_alone()
        # A trial that hangs does not keep others from trying for longer than it may take.
        self._probe_until = time.monotonic() + trial_s

    def _remember(self, error: ServerError | ContractMismatch | None) -> None:
        def ended() -> None:
            if error is not None:
                raise error

        # Left alone meanwhile: of those that began before, others know already.
        with self._lock, suppress(ServerError, ContractMismatch, pybreaker.CircuitBreakerError):
            self._circuit.call(ended)
        self._tell()

    def _tell(self) -> None:
        """Log when a server is left alone, and when it is trusted again; not each trial in between."""
        with self._lock:
            closed = self.is_closed
            if closed == self._told:
                return
            self._told = closed
        if closed:
            log("breaker_closed", "%(server)s is well again", server=self._address)
        else:
            sentence = "%(server)s failed again and again (%(error)s) and is left alone"
            log("breaker_opened", sentence, server=self._address, error=self._last)

    def _open_error(self, left_s: float) -> CircuitOpen:
        until = datetime.now(UTC) + timedelta(seconds=max(left_s, 0))
        return CircuitOpen(
            f"expected {self._address} to be well, but it fails again and again "
            f"({self._last}). Nothing is sent there until {until:%H:%M:%S}.{until.microsecond // 1000:03} UTC. "
            "Try again then, and look into the server's log."
        )


class _SteadyStorage(pybreaker.CircuitMemoryStorage):
    """Tells the time of opening by the clock that never jumps: a device that sets its clock must not wait for it."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self._opened: float | None = None

    def age_s(self) -> float:
        """Seconds since the circuit opened."""
        return 0.0 if self._opened is None else time.monotonic() - self._opened

    @property
    def opened_at(self) -> datetime | None:
        return None if self._opened is None else datetime.now(UTC) - timedelta(seconds=self.age_s())

    @opened_at.setter
    def opened_at(self, _: datetime) -> None:
        self._opened = time.monotonic()
