"""How a payload reaches the task head: Triton over gRPC or HTTP, or the head in this process.

The privacy argument does not depend on anything in here: what arrives at a transport has passed the guard.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import ServerAddress
from .base import Transport

__all__ = ["Transport", "open_transport"]


def open_transport(address: ServerAddress, *, headers: Mapping[str, str] | None = None) -> Transport:
    """Choose the transport that speaks the address's scheme. Nothing is connected yet.

    Args:
        address: Where the task head runs.
        headers: Sent with each request over gRPC or HTTP, for example a key of Triton's restricted protocols.
    """
    # Imported late: gRPC alone takes longer to load than the rest of the package.
    if address.scheme == "grpc":
        from .triton_grpc import GrpcTransport

        return GrpcTransport(address.target, headers=headers)
    if address.scheme == "http":
        from .triton_http import HttpTransport

        return HttpTransport(address.target, headers=headers)
    from .memory import MemoryTransport

    return MemoryTransport(address.target)
