"""How a payload reaches the task head: Triton over gRPC or HTTP, or the head in this process.

The privacy argument does not depend on anything in here: what arrives at a transport has passed the guard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..config import ServerAddress
from ..errors import ConfigError
from ..security import Security
from .base import Transport

__all__ = ["Transport", "open_transport", "open_transports"]


def open_transport(
    address: ServerAddress, *, headers: Mapping[str, str] | None = None, security: Security | None = None
) -> Transport:
    """Choose the transport that speaks the address's scheme. Nothing is connected yet.

    Args:
        address: Where the task head runs.
        headers: Sent with each request over gRPC or HTTP, and never shown.
        security: Certificates and access key, for the same.

    Raises:
        ConfigError: A header cannot be sent, or a file or the key is missing.
    """
    # Imported late: gRPC alone takes longer to load than the rest of the package.
    if address.scheme in {"grpc", "grpcs"}:
        from .triton_grpc import GrpcTransport

        return GrpcTransport(address.target, headers=headers, secure=address.secure, security=security)
    if address.scheme in {"http", "https"}:
        from .triton_http import HttpTransport

        return HttpTransport(address.target, headers=headers, secure=address.secure, security=security)
    from .memory import MemoryTransport

    return MemoryTransport(address.target)


def open_transports(
    server: str | ServerAddress | Sequence[str | ServerAddress] | None,
    transport: Transport | None,
    *,
    headers: Mapping[str, str] | None,
    security: Security | None,
) -> list[Transport]:
    """Choose a transport for each server, or take the one that is given. Nothing is connected yet.

    Raises:
        ConfigError: There is no server, or there are two answers to who it is; or as :func:`open_transport`.
    """
    if transport is not None:
        if server is not None or headers is not None or security is not None:
            raise ConfigError(
                "expected a server or a transport, got both. Give address, headers and security to the transport."
            )
        return [transport]
    servers = [server] if isinstance(server, str | ServerAddress) else list(server or [])
    addresses = [one if isinstance(one, ServerAddress) else ServerAddress.parse(one) for one in servers]
    if not addresses:
        raise ConfigError("expected a server, got none. Give its address, such as grpc://localhost:8001.")
    if len(set(addresses)) < len(addresses):
        raise ConfigError("expected each server once, got one twice.")
    if security is not None and security.concerns_tls and not all(address.secure for address in addresses):
        raise ConfigError("expected grpcs:// or https:// with Security of certificates, got an address in plaintext.")
    return [open_transport(address, headers=headers, security=security) for address in addresses]
