"""One server of a client: reached, compared with the contract, asked, and found out about while it is left alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from ..aside import no_thread
from ..config import CircuitBreaker
from ..contract import Contract
from ..deadline import Deadline
from ..errors import ContractMismatch, DCPError, ServerError, ServerTimeout
from ..events import log
from ..guard import check_payload
from ..obfuscate import Payload
from ..transport import Transport
from .breaker import TRANSIENT, Breaker

__all__ = ["Answer", "Sends", "Server"]


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


class Server:
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
            except RuntimeError as error:  # of gRPC, which starts threads as it needs them
                if "start new thread" not in str(error):
                    raise
                raise no_thread("for the connection") from error
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
