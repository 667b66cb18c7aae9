"""What Triton's two protocols share: the order of the checks, and one sentence for each way to fail."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping

from ..contract import Contract
from ..errors import ConfigError, ServerRejected, ServerTimeout, ServerUnavailable
from .base import Deadline, Transport
from .pairing import ServedModel, check_pairing

__all__ = ["TritonTransport"]

# What both gRPC and HTTP can carry.
_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class TritonTransport(Transport):
    """Base of the two: a protocol tells whether the model is ready, describes it, and sends a request.

    Args:
        target: ``host:port``.
        headers: Sent with each request, for example the key of a restricted endpoint.

    Raises:
        ConfigError: A header is not what both protocols can carry.
    """

    scheme: str

    def __init__(self, target: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._target = target
        self._headers = _check_headers(headers or {})
        self._connected_contract: Contract | None = None

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self._target}"

    def connect(self, contract: Contract, timeout_s: float) -> None:
        deadline = Deadline(timeout_s)
        if not self._is_ready(contract, deadline):
            raise self._not_ready(contract)
        check_pairing(contract, self._describe(contract, deadline), self.address)
        self._connected_contract = contract

    @property
    def _contract(self) -> Contract:
        if self._connected_contract is None:
            raise ConfigError(f"the transport to {self.address} is not connected. Call connect first.")
        return self._connected_contract

    @abstractmethod
    def _is_ready(self, contract: Contract, deadline: Deadline) -> bool:
        """Ask whether the contract's head is loaded."""

    @abstractmethod
    def _describe(self, contract: Contract, deadline: Deadline) -> ServedModel:
        """Ask for the head's metadata and configuration."""

    def _not_ready(self, contract: Contract) -> ServerUnavailable:
        head = contract.head
        return ServerUnavailable(
            f"expected the model {head.model!r} version {head.version} ready at {self.address}, it is not. "
            "Look for it in the server's log, and serve the repository that was exported with the bundle."
        )

    def _unreachable(self, why: str) -> ServerUnavailable:
        return ServerUnavailable(
            f"expected a Triton server at {self.address}, got: {_short(why)}. "
            "Start one with `dcp serve`, or check the address: Triton takes gRPC at 8001 and HTTP at 8000."
        )

    def _too_late(self, timeout_s: float) -> ServerTimeout:
        return ServerTimeout(
            f"expected an answer from {self.address} within {timeout_s:g} s, got none. "
            "Look into the server's load and log, or allow more with Timeouts."
        )

    def _refused(self, why: str) -> ServerRejected:
        return ServerRejected(f"{self.address} refused the request: {_short(why)}. Look into the server's log.")

    def _needs_key(self, why: str) -> ServerRejected:
        return ServerRejected(
            f"{self.address} wants a key: {_short(why)}. Give it as a header: PrivateClient(…, headers={{NAME: KEY}})."
        )

    def _nonsense(self, why: str) -> ServerRejected:
        return ServerRejected(
            f"expected Triton's answer from {self.address}, got {why}. Check that a Triton listens there."
        )


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    checked = {name.lower(): value for name, value in headers.items()}
    for name, value in checked.items():
        if not _HEADER_NAME.fullmatch(name) or name.endswith("-bin"):
            raise ConfigError(f"headers: expected a name of letters, digits, '-', '_' or '.', got {name!r}.")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"headers: expected the value of {name!r} as one line of ASCII, got something else.")
    return checked


def _short(text: str) -> str:
    """One line of somebody else's text, bounded: a server's words end up in our messages and logs."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= 200 else f"{line[:200]}…"
