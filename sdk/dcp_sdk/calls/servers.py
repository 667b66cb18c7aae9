"""The servers of one client: who is asked, how often, for how long, and who is left alone."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ..config import CircuitBreaker, Retries
from ..contract import Contract
from ..deadline import Deadline
from ..errors import (
    AccessDenied,
    CircuitOpen,
    ContractMismatch,
    DCPError,
    ServerTimeout,
    ServerUnavailable,
    TLSFailed,
)
from ..events import log
from ..obfuscate import Payload
from ..stats import BreakerState
from ..transport import Transport
from .server import Answer, Sends, Server

__all__ = ["Servers"]

_ELSEWHERE = (ServerUnavailable, ServerTimeout, AccessDenied, TLSFailed, ContractMismatch)
"""Failures of one server; another may be well. A refused request would be refused there, too."""

T = TypeVar("T")


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
        self._servers = [Server(transport, contract, breaker) for transport in transports]
        self._standby = standby
        self._retries = retries
        self.is_stopped = False
        """Whether :meth:`stop` was called."""
        # A queue in C: whoever waits for an event may hold its lock when a signal's handler stops this.
        self._stopped: queue.SimpleQueue[None] = queue.SimpleQueue()
        if retries.attempts > 1:  # now: where a call fails there may be no file left to be opened
            import tenacity  # noqa: F401 - it loads asyncio, which costs more than all else here, and not all retry
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
        import tenacity

        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._retries.attempts) | tenacity.stop_before_delay(deadline.left_s()),
            wait=tenacity.wait_random_exponential(self._retries.first_wait_s, self._retries.longest_wait_s),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, _ELSEWHERE) and _may_pass(failures)),
            sleep=self._pause,
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
        self.is_stopped = True
        self._stopped.put(None)

    def _pause(self, seconds: float) -> None:
        with suppress(queue.Empty):
            self._stopped.get(timeout=seconds)
            self._stopped.put(None)  # for others who wait

    def _round(self, payload: Payload, deadline: Deadline, sends: Sends, failures: _Failures) -> Answer:
        """Ask every server once, at the most."""

        def ask(server: Server, share: Deadline) -> Answer:
            try:
                if not server.is_well and self._can_wait(server, failures):
                    if not self.is_stopped:
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

    def _can_wait(self, server: Server, failures: _Failures) -> bool:
        """Whether somebody else can answer: the head on the device, or a server that is well and did not fail now."""
        return self._standby or any(
            other.is_well and other not in failures for other in self._servers if other is not server
        )

    def _first_well(
        self,
        deadline: Deadline,
        ask: Callable[[Server, Deadline], T],
        failures: _Failures,
        servers: Sequence[Server] | None = None,
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


_Failures = dict[Server, DCPError]
"""The last failure of each server in one call."""


def _is_worth_asking(failure: DCPError | None) -> bool:
    """Say whether a server may be asked in this call; time that ran out does not come back, and a refusal stays."""
    return failure is None or isinstance(failure, ServerUnavailable)


def _may_pass(failures: _Failures) -> bool:
    """Say whether the same bytes may be welcome somewhere a moment later; a server that is left alone stays so."""
    return any(isinstance(f, ServerUnavailable) and not isinstance(f, CircuitOpen) for f in failures.values())
