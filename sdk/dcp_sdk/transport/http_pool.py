"""Kept-alive HTTP connections whose requests end by a deadline, whatever the other side does.

A socket's own timeout starts anew with each byte: a server that drips one byte a second would hold its client
for ever.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from .base import Deadline

__all__ = ["ConnectionPool", "Response"]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class ConnectionPool:
    """Connections to one server; grows with the number of threads that use it at the same time. Thread-safe.

    Args:
        target: ``host:port``.
        largest_body_bytes: Longer answers are cut off with an error.
    """

    def __init__(self, target: str, *, largest_body_bytes: int = 1 << 20) -> None:
        host, _, port = target.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._largest_body_bytes = largest_body_bytes
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed = False

    def request(
        self,
        method: str,
        path: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Response:
        """Send one request, once, and read the answer.

        Raises:
            TimeoutError: The deadline passed.
            OSError: The server cannot be reached, or the connection broke.
            http.client.HTTPException: What came is not HTTP, or too long.
        """
        connection = self._take(deadline)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            answer = connection.getresponse()
            content = answer.read(self._largest_body_bytes + 1)
            if len(content) > self._largest_body_bytes:
                raise http.client.HTTPException(f"more than {self._largest_body_bytes} bytes")
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def close(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, deadline: Deadline) -> _Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise ConnectionError("the transport is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect(deadline)
            # Found out before anything is sent, so that no request needs to be sent twice.
            if connection.sock.is_reusable():
                connection.sock.deadline = deadline
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if not self._closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self, deadline: Deadline) -> _Connection:
        failure: OSError = ConnectionError(f"no address for {self._host}")
        for family, kind, protocol, _, address in _resolve(self._host, self._port, deadline):
            connection = _Connection(self._host, self._port)
            connection.sock = _DeadlineSocket(family, kind, protocol)
            connection.sock.deadline = deadline
            try:
                connection.sock.settimeout(deadline.remaining_s())
                connection.sock.connect(address)
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connection.close()
                failure = error
                if isinstance(error, TimeoutError):
                    break
            else:
                return connection
        raise failure


class _DeadlineSocket(socket.socket):
    """A socket whose operations share one deadline, instead of having a timeout each."""

    deadline: Deadline

    def sendall(self, *args: Any) -> None:
        self.settimeout(self.deadline.remaining_s())
        super().sendall(*args)

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self.deadline.remaining_s())
        return super().recv_into(*args)

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


class _Connection(http.client.HTTPConnection):
    auto_open = 0  # it must never reconnect, and so resend, on its own
    sock: _DeadlineSocket


def _resolve(host: str, port: int, deadline: Deadline) -> list[tuple[Any, ...]]:
    """Call ``getaddrinfo`` in a thread: it has no timeout of its own and cannot be interrupted."""
    found: Future[list[tuple[Any, ...]]] = Future()

    def look_up() -> None:
        try:
            found.set_result(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            found.set_exception(OSError(f"cannot resolve {host}: {error}"))

    threading.Thread(target=look_up, name=f"dcp resolve {host}", daemon=True).start()
    return found.result(deadline.remaining_s())
