"""Sockets whose operations share one deadline, in plaintext and with TLS.

A socket's own timeout starts anew with each byte: a server that drips one byte a second would hold its client
for ever.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

from ..aside import Work
from ..deadline import Deadline

__all__ = ["DeadlineSocket", "TLSDeadlineSocket", "connect", "secure", "split_target"]


class _Reads(socket.socket):
    """Reads by the deadline."""

    deadline: Deadline

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self.deadline.remaining_s())
        return super().recv_into(*args)


class DeadlineSocket(_Reads):
    """A plaintext connection."""

    def sendall(self, *args: Any) -> None:
        self.settimeout(self.deadline.remaining_s())
        super().sendall(*args)

    def is_reusable(self) -> bool:
        """Tell whether there is nothing to read; if there is, the server closed it or talks out of turn."""
        self.setblocking(False)
        try:
            self.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


class TLSDeadlineSocket(_Reads, ssl.SSLSocket):
    """The same inside TLS. Made by :func:`secure`."""

    def getpeername(self) -> Any:
        """Tell who the peer is. ``ssl`` asks before the handshake, and leaves open what was reset until then."""
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, "the connection was reset") from error

    def send(self, *args: Any) -> int:
        self.settimeout(self.deadline.remaining_s())
        return super().send(*args)

    def is_reusable(self) -> bool:
        """Tell whether there is nothing to read but what TLS itself says, such as new session tickets."""
        self.setblocking(False)
        try:
            self.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        return False


def split_target(target: str) -> tuple[str, int]:
    """Read ``host:port``; an IPv6 host stands in brackets.

    >>> split_target("[::1]:8001")
    ('::1', 8001)
    """
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


def connect(host: str, port: int, deadline: Deadline) -> DeadlineSocket:
    """Open a connection to the first address of ``host`` that takes one. Each gets its share of the time that is left.

    Raises:
        TimeoutError: The deadline passed.
        OSError: There is no address, or none takes a connection.
    """
    failure: OSError = ConnectionError(f"no address for {host}")
    addresses = _resolve(host, port, deadline)
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        connection = DeadlineSocket(family, kind, protocol)
        connection.deadline = deadline
        try:
            connection.settimeout(deadline.remaining_s() / left)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def secure(plain: DeadlineSocket, context: ssl.SSLContext, host: str) -> TLSDeadlineSocket:
    """Shake hands over ``plain``, which is used up by this, whether it succeeds or not.

    Raises:
        TimeoutError: The deadline passed.
        ssl.SSLError: The two sides do not agree.
        OSError: The connection broke.
    """
    context.sslsocket_class = TLSDeadlineSocket
    with plain:
        wrapped = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    assert isinstance(wrapped, TLSDeadlineSocket)
    wrapped.deadline = plain.deadline
    try:
        wrapped.settimeout(plain.deadline.remaining_s())
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped


def _resolve(host: str, port: int, deadline: Deadline) -> list[tuple[Any, ...]]:
    """Call ``getaddrinfo`` in a thread: it has no timeout of its own and cannot be interrupted."""

    def look_up() -> list[tuple[Any, ...]]:
        try:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            raise OSError(f"cannot resolve {host}: {error}") from error

    name = Work(look_up, f"dcp resolve {host}")
    name.start()
    return name.result(deadline.remaining_s())
