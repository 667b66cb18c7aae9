"""What every transport can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from ..contract import Contract
from ..obfuscate import Payload

__all__ = ["TRACE_HEADERS", "Transport"]

TRACE_HEADERS: ContextVar[Mapping[str, str]] = ContextVar("dcp_trace_headers", default=MappingProxyType({}))
"""Headers that :meth:`Transport.infer` sends along with this very request: W3C's ``traceparent``, or none."""


class Transport(ABC):
    """Carries checked payloads to one task head and brings its answers back.

    An implementation is thread-safe, never retries, and holds the time limits that it is given; ``Servers``
    retries. A payload travels only over a connection on which the pairing was checked: where one was lost, the
    next :meth:`infer` checks anew. Inject your own with ``PrivateClient(bundle, transport=…)``.
    """

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it leads, for people: ``grpc://localhost:8001``."""

    @abstractmethod
    def connect(self, contract: Contract, timeout_s: float) -> None:
        """Reach the task head and make sure that it was exported together with the bundle. Sends no payload.

        Args:
            contract: The bundle's contract; later calls of :meth:`infer` follow it.
            timeout_s: Seconds in all.

        Raises:
            ServerUnavailable: Nobody answers, or the model is not loaded.
            ServerTimeout: No answer within ``timeout_s``.
            ServerRejected: The server refuses, or answers with nonsense.
            ContractMismatch: Another head is served there.
        """

    def reach(self, timeout_s: float) -> None:  # noqa: B027 - most transports of others connect nothing
        """Have a checked connection, so that :meth:`infer` sends at once: what is handed over is counted from here on.

        Args:
            timeout_s: Seconds in all.

        Raises:
            ServerError: As :meth:`infer`; the payload was not sent.
            ContractMismatch: Likewise.
        """

    @abstractmethod
    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        """Send one batch and return what the task head answered, not yet checked against the contract.

        Args:
            payload: Arrays ``(N, *shape)`` in the order of ``contract.payload``, from the guard.
            timeout_s: Seconds in all.

        Raises:
            ServerUnavailable: The connection cannot be made, or broke. This alone is tried again.
            ServerTimeout: No answer within ``timeout_s``.
            ServerRejected: The server refuses, or answers with nonsense.
            ContractMismatch: Another head is served there now; the payload was not sent.
        """

    @abstractmethod
    def close(self) -> None:
        """Free connections. May be called twice."""
