"""What Triton's two protocols share: headers, tensors, and one sentence for each way to fail."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from ..config import check_kinds
from ..contract import Contract
from ..errors import AccessDenied, ConfigError, ServerRejected, ServerTimeout, ServerUnavailable, TLSFailed
from ..events import printable
from ..security import Security
from .base import Transport
from .tcp import split_target
from .tls import client_context

__all__ = ["ConnectionOptions", "TritonTransport"]

# What both gRPC and HTTP can carry.
_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

T = TypeVar("T")


class ConnectionOptions(TypedDict, total=False):
    """What :class:`TritonTransport` takes beside the target, for the types of those who pass it on."""

    headers: Mapping[str, str] | None
    secure: bool
    security: Security | None


class TritonTransport(Transport):
    """Base of the two: a protocol asks about the model and sends requests; here are the words for its failures.

    Args:
        target: ``host:port``.
        headers: Sent with each request.
        secure: Speak TLS.
        security: Certificates and access key.

    Raises:
        ConfigError: A header is not what both protocols can carry, a file of ``security`` does not hold what it should,
            or the access key is missing.
    """

    scheme: str
    """In plaintext; with TLS an ``s`` follows."""
    key_prefix: str
    """What the protocol puts before the name of Triton's key."""

    def __init__(
        self,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        secure: bool = False,
        security: Security | None = None,
    ) -> None:
        self._target = target
        self._address = f"{self.scheme}{'s' if secure else ''}://{target}"
        self._host, self._port = split_target(target)
        self._headers = _check_headers(headers or {})
        self._secure, self._security = secure, security
        self._last_headers = self._read_headers()
        if secure:
            client_context(security)  # complains about files now, which gRPC would fail on without a reason
        self._connected_contract: Contract | None = None

    @property
    def address(self) -> str:
        return self._address

    def _request_headers(self) -> dict[str, str]:
        """Read the access key anew: somebody may have changed it.

        Raises:
            AccessDenied: It cannot be read now. It could when the transport was made, so that may pass.
        """
        try:
            self._last_headers = self._read_headers()
        except ConfigError as error:
            words = f"expected a key to show to {self.address}. {error} The next call reads it anew."
            raise AccessDenied(words) from None
        return self._last_headers

    def _read_headers(self) -> dict[str, str]:
        key = self._security.api_key() if self._security else None
        if key is None or self._security is None:
            return self._headers
        name = f"{self.key_prefix}{self._security.api_key_header}"
        return self._headers | _check_headers({name: key.get_secret_value()})

    def _read_certificates(self, read: Callable[[], T]) -> T:
        """Call ``read``, which reads the files of ``security`` anew.

        Raises:
            TLSFailed: One cannot be read now. It could when the transport was made, so that may pass.
        """
        try:
            return read()
        except ConfigError as error:
            raise self._insecure(str(error).rstrip(".")) from None

    @property
    def _contract(self) -> Contract:
        if self._connected_contract is None:
            raise ConfigError(f"the transport to {self.address} is not connected. Call connect first.")
        return self._connected_contract

    def _not_ready(self, contract: Contract) -> ServerUnavailable:
        head = contract.head
        return ServerUnavailable(
            f"expected the model {head.model!r} version {head.version} ready at {self.address}, it is not. "
            "Look for it in the server's log, and serve the repository that was exported with the bundle."
        )

    def _unreachable(self, why: str, *, unwelcome: bool = False) -> ServerUnavailable:
        """Say what broke; ``unwelcome`` where it may have been the server's mind about this device's certificate."""
        hint = "One that wants another certificate of this device may hang up, too. " if unwelcome else ""
        return ServerUnavailable(
            f"expected a Triton server at {self.address}, got: {self._said(why)}. {hint}"
            "Start one with `dcp serve`, or check the address: Triton takes gRPC at 8001 and HTTP at 8000."
        )

    def _too_late(self, timeout_s: float) -> ServerTimeout:
        return ServerTimeout(
            f"expected an answer from {self.address} within {timeout_s:.3g} s, got none. "
            "Look into the server's load and log, or allow more with Timeouts."
        )

    def _full(self, why: str) -> ServerUnavailable:
        return ServerUnavailable(
            f"expected room in the queue of {self.address}, got: {self._said(why)}. "
            "Send less at a time, or give the server more instances or a longer queue."
        )

    def _refused(self, why: str) -> ServerRejected:
        return ServerRejected(f"{self.address} refused the request: {self._said(why)}. Look into the server's log.")

    def _needs_key(self, why: str) -> AccessDenied:
        return AccessDenied(
            f"{self.address} wants a key: {self._said(why)}. Give the right one with Security(api_key_file=…) or "
            "Security(api_key_variable=…), or on the command line with --api-key-file or $DCP_KEY."
        )

    def _insecure(self, reason: str) -> TLSFailed:
        return TLSFailed(f"expected a secure connection to {self.address}, but {reason}. Nothing was sent over it.")

    def _nonsense(self, why: str) -> ServerRejected:
        return ServerRejected(
            f"expected Triton's answer from {self.address}, got {why}. Check that a Triton listens there."
        )

    def _tensor(self, dtype: str, shape: Sequence[int], data: bytes) -> npt.NDArray[Any]:
        """Read a tensor's little-endian bytes, if they are as many as its shape says."""
        stored = np.dtype(dtype).newbyteorder("<")
        if min(shape, default=0) < 0 or math.prod(shape) * stored.itemsize != len(data):
            raise self._nonsense("a tensor whose bytes do not fit its shape")
        try:
            return np.frombuffer(data, stored).astype(dtype).reshape(tuple(shape))
        except (ValueError, OverflowError):  # more axes, or larger ones, than numpy knows
            raise self._nonsense("a tensor of a shape that cannot be") from None

    def _said(self, text: str) -> str:
        """One line of somebody else's text, bounded, without the keys that a server may repeat."""
        for secret in self._last_headers.values():
            text = text.replace(secret, "…") if len(secret) > 3 else text
        line = " ".join(printable(text).split()).rstrip(".")
        return line if len(line) <= 200 else f"{line[:200]}…"


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        check_kinds(headers=(name, str))
        check_kinds(headers=(value, str))
    checked = {name.lower(): value for name, value in headers.items()}
    for name, value in checked.items():
        if not _HEADER_NAME.fullmatch(name) or name.endswith("-bin"):
            raise ConfigError(f"headers: expected a name of letters, digits, '-', '_' or '.', got {name!r}.")
        if not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"headers: expected the value of {name!r} as one line of ASCII, got something else.")
    return checked
