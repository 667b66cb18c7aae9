"""What a caller may choose: how long to wait, how often to try, where the server is, on which device to compute."""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError

__all__ = [
    "CircuitBreaker",
    "Device",
    "OnFailure",
    "Options",
    "Retries",
    "ServerAddress",
    "Timeouts",
    "check_kinds",
    "read_key_file",
]

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
"""Where the device graph runs. ``cuda``: all of it on the GPU, or an error; ``tensorrt``: the same, by TensorRT where
it can; ``auto``: CUDA where it works."""

OnFailure = Literal["raise", "local"]
"""When no server answers: ``raise`` the error, or let the head in the bundle answer on the device (``local``)."""

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>[0-9]{1,5})")

Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""Up to a day: clocks and sockets take no number that is much larger."""


def check_kinds(**options: tuple[object, Any]) -> None:
    """Make sure that each option, ``name=(value, kind)``, is of its kind: a class, or several with ``|`` between.

    Raises:
        ConfigError: One is not. The message names its class and not its value, which could be a secret.
    """
    for name, (value, kind) in options.items():
        kinds = get_args(kind) or (kind,)
        # To Python a bool is a number and a text a sequence.
        if not isinstance(value, kind) or (isinstance(value, bool | str | bytes) and type(value) not in kinds):
            expected = " or ".join("None" if one is NoneType else one.__name__ for one in kinds)
            raise ConfigError(f"{name}: expected {expected}, got {type(value).__name__}.")


def read_key_file(path: Path, expected: str, remedy: str) -> bytes:
    """Read a file whose content must not appear in any message.

    Raises:
        ConfigError: It cannot be read, or is no file: to read a pipe may never end.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{expected} at {path}, got something that is no file. {remedy}")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{expected} at {path}, got {type(error).__name__}. {remedy}") from error


class Options(BaseModel):
    """Base of all options: frozen, nothing misspelt, and a :class:`ConfigError` for what makes no sense."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: object) -> None:
        # Callers see one error tree; pydantic's own error stays attached as the cause.
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            hidden = self.model_config.get("hide_input_in_errors")
            got = "" if hidden or not where else f", got {first['input']!r}"
            name = f"{type(self).__name__}.{where}" if where else type(self).__name__
            raise ConfigError(f"{name}: {first['msg'].removeprefix('Value error, ')}{got}.") from error


class Timeouts(Options):
    """How long the client waits.

    Raises:
        ConfigError: A value is not a positive number of at most 86,400, a day.
    """

    connect_s: Seconds = 5.0
    """Seconds in all for reaching a server and checking the pairing, when the client is made."""
    predict_s: Seconds = 2.0
    """Seconds in all for one request: waiting for the camera, device graph, connection, upload, the task head's
    work, answer, and every retry and failover."""


class Retries(Options):
    """How often a request is sent again after a failure that may pass by itself, within its deadline.

    A connection that is refused or breaks and a full queue may pass; a wrong key, a certificate and a refusal do
    not, and a deadline never starts anew. The same bytes are sent again. A server that broke off after it had read
    them sees the same payload twice.

    Raises:
        ConfigError: A value is out of range, or the waits contradict each other.
    """

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """Attempts in all; 1 never tries again. With several servers an attempt asks once each
    that did not refuse or run out of time in this call."""
    first_wait_s: Seconds = 0.05
    """Seconds of the longest pause after the first attempt; it doubles with each. The pause itself is drawn between
    0 and that, so that many devices do not come back in step."""
    longest_wait_s: Seconds = 0.5
    """Seconds that no pause exceeds."""

    @model_validator(mode="after")
    def _waits_grow(self) -> Self:
        if self.longest_wait_s < self.first_wait_s:
            raise ValueError(f"expected longest_wait_s of at least first_wait_s, {self.first_wait_s:g}")
        return self

    @classmethod
    def none(cls) -> Self:
        """Send everything once."""
        return cls(attempts=1)


class CircuitBreaker(Options):
    """When to stop asking a server that keeps failing, so that calls fail at once instead of waiting for it.

    Only failures that may pass by themselves count. After the pause one call, or a thread, tries the server again.

    Raises:
        ConfigError: A value is out of range.
    """

    failures: Annotated[int, Field(ge=1)] = 5
    """Failures in a row after which nothing is sent to this server for a while."""
    pause_s: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Seconds of that while, and with it the longest delay after the server is back; after trials that got no answer
    at all it is longer, up to a call's time. Where somebody else can answer, no call waits for it: a thread tries it,
    with the smallest payload there is, which holds nothing of a picture."""


class ServerAddress(Options):
    """Where the task head runs. Usually made by :meth:`parse`.

    Raises:
        ConfigError: A part is missing or unknown.
    """

    scheme: Literal["grpc", "grpcs", "http", "https", "memory"]
    """Triton over gRPC or HTTP, each in plaintext or with TLS, or the head in this very process."""
    target: Annotated[str, Field(min_length=1)]
    """``host:port``, or for ``memory`` the path of a Triton model repository."""

    @model_validator(mode="after")
    def _host_and_port(self) -> Self:
        match = _HOST_PORT.fullmatch(self.target)
        if self.scheme != "memory" and (match is None or not 0 < int(match["port"]) < 65536):
            raise ValueError(f"expected HOST:PORT, got {self.target!r}; Triton listens at 8001 (gRPC) and 8000 (HTTP)")
        return self

    @classmethod
    def parse(cls, address: str) -> Self:
        """Read ``grpc[s]://HOST:PORT``, ``http[s]://HOST:PORT``, ``HOST:PORT`` (gRPC) or ``memory://REPOSITORY``.

        >>> ServerAddress.parse("localhost:8001")
        ServerAddress(scheme='grpc', target='localhost:8001')

        Args:
            address: The address. An IPv6 host stands in brackets; the path of a repository may be relative.

        Raises:
            ConfigError: It is none of these.
        """
        expected = (
            "server: expected grpc://HOST:PORT, http://HOST:PORT (or grpcs, https), HOST:PORT or memory://REPOSITORY"
        )
        if not isinstance(address, str):
            raise ConfigError(f"{expected}, got {type(address).__name__}.")
        if "@" in address and not address.strip().startswith("memory:"):  # what precedes it could be a password
            raise ConfigError(f"{expected}, got one with '@'. Give a key with Security(api_key_variable=…).")
        scheme, separator, target = address.strip().rpartition("://")
        try:
            return cls(scheme=scheme if separator else "grpc", target=target)  # type: ignore[arg-type]
        except ConfigError as error:
            raise ConfigError(f"{expected}, got {address!r}. {error}") from error

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in {"grpcs", "https"}

    def __str__(self) -> str:
        return f"{self.scheme}://{self.target}"
