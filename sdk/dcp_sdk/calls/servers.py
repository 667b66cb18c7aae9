"""The servers of one client: who is asked, how often, for how long, and who is left alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy.typing as npt

from ..config import CircuitBreaker, Retries
from ..contract import Contract
from ..deadline import Deadline
from ..errors import (
    AccessDenied,
    CircuitOpen,
    ContractMismatch,
    DCPError,
    ServerError,
    ServerTimeout,
    ServerUnavailable,
    TLSFailed,
)
from ..events import log
from ..guard import check_payload
from ..obfuscate import Payload
from ..stats import BreakerState
from ..transport import Transport
from .breaker import TRANSIENT, Breaker

__all__ = ["Answer", "Sends", "Servers"]

_ELSEWHERE = (ServerUnavailable, ServerTimeout, AccessDenied, TLSFailed, ContractMismatch)
"""Failures of one server; another may be well. A refused request would be refused there, too."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said, not yet checked against the contract."""

    values: npt.NDArray[Any] = field(repr=False)
    address: str
    """Who said it."""
    sends: int
    """How often the payload was handed to a connection by then."""


class Sends:
    """What it took to get one payload answered, whatever came of it."""

    def __init__(self) -> None:
        self.count = 0
        """How often it was handed to a connection."""
        self.rounds = 0
        """How often the servers were tried in turn; more than 1 after a retry."""
        self.failures: Counter[str] = Counter()
        """How often a server failed, or was left alone, by the error's class; no more than names is kept."""


class Servers:
    """Servers with the same head, in the order in which they are preferred. Thread-safe.

    Args:
        transports: One per server.
        contract: What each must be paired with before a payload goes there.
        retries: How often to try all of them.
        breaker: When to leave one of them alone.
        standby: Whether somebody answers where no server does, such as the head on the device.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        contract: Contract,
        *,
        retries: Retries,
        breaker: CircuitBreaker,
        standby: bool = False,
    ) -> None:
        self._servers = [_Server(transport, contract, breaker) for transport in transports]
        self._standby = standby
        self._retries = retries
        self._closing = threading.Event()
        self._answering = self._servers[0].transport.address

    def connect(self, timeout_s: float) -> None:
        """Reach the first server that is well, and check the pairing. The others are checked when they are needed.

        Raises:
            ServerError: None is well; the error is that of the first.
            ContractMismatch: The first serves another head, and no other is well.
        """
        self._first_well(Deadline(timeout_s), lambda server, deadline: server.check(deadline), {})

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where they are, in order."""
        return tuple(server.transport.address for server in self._servers)

    @property
    def first(self) -> Transport:
        """The one that is preferred."""
        return self._servers[0].transport

    def breakers(self) -> dict[str, BreakerState]:
        """State of each server's circuit breaker, by address."""
        return {server.transport.address: server.breaker.state for server in self._servers}

    def infer(self, payload: Payload, deadline: Deadline, sends: Sends) -> Answer:
        """Send one batch to the first server that is well, and try again those whose failure may pass by itself.

        The bytes of every attempt are those of ``payload``. A server that refused or took all its time does not get
        them again.

        Args:
            payload: Arrays ``(N, *shape)`` in the order of ``contract.payload``, from the guard.
            deadline: Of all attempts together.
            sends: Counts them.

        Raises:
            DeadlineExceeded: No time was left to ask anybody.
            ServerError: No server gave an answer.
            ContractMismatch: The first serves another head, and no other is well.
        """
        failures: _Failures = {}
        try:
            return self._round(payload, deadline, sends, failures)
        except _ELSEWHERE as error:
            if not _may_pass(failures):
                raise
            failed: list[DCPError] = [error]
        import tenacity  # late: it loads asyncio, and costs more than all else here, while most calls need no retry

        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retries.attempts) | tenacity.stop_before_delay(deadline.left_s()),
            wait=tenacity.wait_random_exponential(self._retries.first_wait_s, self._retries.longest_wait_s),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, _ELSEWHERE) and _may_pass(failures)),
            sleep=tenacity.sleep_using_event(self._closing),
            reraise=True,
        )

        def attempt() -> Answer:
            if failed:  # the round above was the first attempt
                raise failed.pop()
            return self._round(payload, deadline, sends, failures)

        answer: Answer = attempts(attempt)
        return answer

    def stop(self) -> None:
        """Pause before no further attempt. The transports belong to whoever opened them."""
        self._closing.set()

    def _round(self, payload: Payload, deadline: Deadline, sends: Sends, failures: _Failures) -> Answer:
        """Ask every server once, at the most."""

        def ask(server: _Server, share: Deadline) -> Answer:
            try:
                if not server.is_well and self._can_wait(server, failures):
                    if not self._closing.is_set():
                        server.find_out(share.timeout_s)
                    raise server.breaker.left_alone()
                return server.infer(payload, share, sends)
            except DCPError as error:
                sends.failures[type(error).__name__] += 1
                raise

        sends.rounds += 1
        try:
            answer = self._first_well(deadline, ask, failures)
        except _ELSEWHERE:
            # Those that were passed over because another could answer: it did not.
            alone = [server for server in self._servers if isinstance(failures.get(server), CircuitOpen)]
            if self._standby or not alone:
                raise
            answer = self._first_well(deadline, ask, failures, alone)
        before, self._answering = self._answering, answer.address
        if before != answer.address:
            log("failover", "%(server)s answers now, no longer %(before)s", server=answer.address, before=before)
        return answer

    def _can_wait(self, server: _Server, failures: _Failures) -> bool:
        """Whether somebody else can answer: the head on the device, or a server that is well and did not fail now."""
        return self._standby or any(
            other.is_well and other not in failures for other in self._servers if other is not server
        )

    def _first_well(
        self,
        deadline: Deadline,
        ask: Callable[[_Server, Deadline], T],
        failures: _Failures,
        servers: Sequence[_Server] | None = None,
    ) -> T:
        """Ask one server after the other, each for its share of the time; raise the first's error if all fail.

        Those that failed in ``failures`` for good are passed over; it then holds the last failure of each. None takes
        all servers.
        """
        servers = [server for server in servers or self._servers if _is_worth_asking(failures.get(server))]
        for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
            if (left_s := deadline.left_s()) == 0:
                break  # whoever was asked now would be blamed for the time that this device took
            try:
                return ask(server, Deadline(left_s / left))
            except _ELSEWHERE as error:
                failures[server] = error
        if not failures:
            raise deadline.exceeded("the stages before the network")
        in_order = [failures[server] for server in self._servers if server in failures]
        # One that is left alone tells less than one that was asked.
        raise next((failure for failure in in_order if not isinstance(failure, CircuitOpen)), in_order[0])


class _Server:
    """One server: its transport, its breaker, and whether its head was compared with the contract."""

    def __init__(self, transport: Transport, contract: Contract, options: CircuitBreaker) -> None:
        self.transport = transport
        self._contract = contract
        self.breaker = Breaker(transport.address, options)
        self._nothing: Payload = tuple(spec.smallest()[None] for spec in contract.payload)
        self._finding_out = threading.Lock()
        self._first_trial_s = self._trial_s = options.pause_s
        self._checking = threading.Lock()
        self._checked = False
        self._trouble = ""
        self._failing_since = 0.0

    @property
    def is_well(self) -> bool:
        """Whether it is asked as usual."""
        return self.breaker.is_closed

    def find_out(self, timeout_s: float) -> None:
        """Once the pause is over, ask it in a thread of its own whether it is back, so that no call waits for it.

        It gets the smallest payload that the contract allows, the same each time, which no picture had a part in.
        A trial takes no longer than the pause, so that a server that is back is soon asked again; twice as long after
        each that was too short, since a slow link may need longer than any pause.

        Args:
            timeout_s: Seconds that it may take at the most.
        """
        if self.breaker.state != "half-open" or not self._finding_out.acquire(blocking=False):
            return
        limit_s = min(timeout_s, self._trial_s)
        try:
            threading.Thread(target=self._find_out, args=(limit_s,), name="dcp trial", daemon=True).start()
        except RuntimeError:  # no thread can be had now; a later call finds out
            self._finding_out.release()

    def _find_out(self, limit_s: float) -> None:
        try:
            self.infer(check_payload(self._contract, self._nothing), Deadline(limit_s), Sends())
            self.breaker.distrust()  # it answered next to nothing; a real payload may be another matter
            self._trial_s = self._first_trial_s
        except ServerTimeout:
            self._trial_s = 2 * limit_s
        except DCPError:
            pass  # counted, and told
        finally:
            self._finding_out.release()

    def check(self, deadline: Deadline) -> None:
        with self._trying(deadline):
            self._check_once(deadline)

    def infer(self, payload: Payload, deadline: Deadline, sends: Sends) -> Answer:
        with self._trying(deadline):
            self._check_once(deadline)
            self.transport.reach(self._left(deadline))
            sends.count += 1
            values = self.transport.infer(payload, self._left(deadline))
        return Answer(values, self.transport.address, sends.count)

    @contextmanager
    def _trying(self, deadline: Deadline) -> Iterator[None]:
        """Remember how it went: for the breaker, and for the log."""
        with self.breaker.guarding(deadline.timeout_s):
            try:
                yield
            except (ServerError, ContractMismatch) as error:
                self._notice(error)
                raise
            if self._trouble:
                self._trouble = ""
                seconds = round(time.monotonic() - self._failing_since, 3)
                server = self.transport.address
                log("server_back", "%(server)s answers after %(seconds)s s", server=server, seconds=seconds)

    def _notice(self, error: DCPError) -> None:
        """Log a failure of another kind than the last: all that may pass are one kind, the others go by class."""
        kind, passes = type(error).__name__, isinstance(error, TRANSIENT)
        before, self._trouble = self._trouble, "lost" if passes else kind
        if not before:
            self._failing_since = time.monotonic()
        if before == self._trouble:
            return
        if passes:
            log("server_lost", "%(server)s fails: %(error)s", server=self.transport.address, error=kind)
        else:
            sentence = "%(server)s fails with what does not pass by itself: %(error)s"
            log("server_refused", sentence, server=self.transport.address, error=kind)

    def _check_once(self, deadline: Deadline) -> None:
        """Compare the head with the contract before the first payload; later the transport does it where needed."""
        if self._checked:
            return
        if not self._checking.acquire(timeout=deadline.left_s()):
            raise self._too_late(deadline)
        try:
            if not self._checked:
                self.transport.connect(self._contract, self._left(deadline))
                self._checked = True
        finally:
            self._checking.release()

    def _left(self, deadline: Deadline) -> float:
        try:
            return deadline.remaining_s()
        except TimeoutError as error:
            raise self._too_late(deadline) from error

    def _too_late(self, deadline: Deadline) -> ServerTimeout:
        return ServerTimeout(
            f"expected an answer from {self.transport.address} within {deadline.timeout_s:.3g} s, got none. "
            "Look into the server's load and log, or allow more with Timeouts."
        )


_Failures = dict[_Server, DCPError]
"""The last failure of each server in one call."""


def _is_worth_asking(failure: DCPError | None) -> bool:
    """Say whether a server may be asked in this call; time that ran out does not come back, and a refusal stays."""
    return failure is None or isinstance(failure, ServerUnavailable)


def _may_pass(failures: _Failures) -> bool:
    """Say whether the same bytes may be welcome somewhere a moment later; a server that is left alone stays so."""
    return any(isinstance(f, ServerUnavailable) and not isinstance(f, CircuitOpen) for f in failures.values())
