"""What a caller may choose: how long to wait, where the server is, on which device to compute."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError

__all__ = ["Device", "ServerAddress", "Timeouts"]

Device = Literal["auto", "cpu", "cuda"]
"""Where the device graph runs. ``cuda``: all of it on the GPU, or an error; ``auto``: CUDA where it works."""

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?):(?P<port>[0-9]{1,5})")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def __init__(self, **values: object) -> None:
        # Callers see one error tree; pydantic's own error stays attached as the cause.
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{type(self).__name__}.{where}: {first['msg']}, got {first['input']!r}.") from error


class Timeouts(_Options):
    """How long the client waits for the server.

    Raises:
        ConfigError: A value is not a positive, finite number.
    """

    connect_s: Seconds = 5.0
    """Seconds in all for reaching the server and checking the pairing, when the client is made."""
    predict_s: Seconds = 2.0
    """Seconds in all for the network part of a request: connection, upload, the task head's work, answer."""


class ServerAddress(_Options):
    """Where the task head runs. Usually made by :meth:`parse`.

    Raises:
        ConfigError: A part is missing or unknown.
    """

    scheme: Literal["grpc", "http", "memory"]
    """Triton over gRPC, Triton over HTTP, or the head in this very process."""
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
        """Read ``grpc://HOST:PORT``, ``http://HOST:PORT``, ``HOST:PORT`` (gRPC) or ``memory://MODEL_REPOSITORY``.

        >>> ServerAddress.parse("localhost:8001")
        ServerAddress(scheme='grpc', target='localhost:8001')

        Args:
            address: The address. An IPv6 host stands in brackets; the path of a repository may be relative.

        Raises:
            ConfigError: It is none of these.
        """
        expected = "server: expected grpc://HOST:PORT, http://HOST:PORT, HOST:PORT or memory://MODEL_REPOSITORY"
        if not isinstance(address, str):
            raise ConfigError(f"{expected}, got {type(address).__name__}.")
        scheme, separator, target = address.strip().rpartition("://")
        if scheme in {"https", "grpcs"}:
            raise ConfigError(f"{expected}, got {address!r}. This version does not speak TLS.")
        try:
            return cls(scheme=scheme if separator else "grpc", target=target)  # type: ignore[arg-type]
        except ConfigError as error:
            raise ConfigError(f"{expected}, got {address!r}. {error}") from error

    def __str__(self) -> str:
        return f"{self.scheme}://{self.target}"
