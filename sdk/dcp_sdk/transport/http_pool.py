"""Kept-alive HTTP connections whose requests end by a deadline, whatever the other side does."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..deadline import Deadline
from .tcp import DeadlineSocket, TLSDeadlineSocket, connect, split_target

__all__ = ["AnswerTooLong", "Connection", "ConnectionPool", "Response"]


class AnswerTooLong(http.client.HTTPException):
    """It was cut off."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Connection(http.client.HTTPConnection):
    """One connection, in use by one thread at a time."""

    auto_open = 0  # it must never reconnect, and so resend, on its own
    sock: DeadlineSocket | TLSDeadlineSocket | None  # None once the server closed it after an answer
    largest_body_bytes: int
    checked = False
    """For its user: whether what must be asked first was asked over this very connection."""
    _unsent: bytes

    def exchange(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Response:
        """Send one request, once, and read the answer.

        Raises:
            TimeoutError: The deadline passed.
            OSError: The connection broke.
            AnswerTooLong: It has more bytes than this connection may read.
            http.client.HTTPException: What came is not HTTP.
        """
        if self.sock is None:
            raise ConnectionError("the server closes the connection after an answer, and must keep it alive")
        self._unsent = b""
        self.request(method, path, body=body, headers=dict(headers))
        self.sock.sendall(self._unsent)
        answer = self.getresponse()
        content = answer.read(self.largest_body_bytes + 1)
        if len(content) > self.largest_body_bytes:
            raise AnswerTooLong(f"more than {self.largest_body_bytes:,} bytes")
        if answer.length:  # reading so many bytes at the most does not complain where fewer come than were promised
            raise ConnectionError(f"the connection ended {answer.length:,} bytes before the answer did")
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)

    def send(self, data: bytes) -> None:  # type: ignore[override]  # whoever calls it has bytes
        """Put head and body together: each packet of its own costs a system call, and wakes the server once more."""
        self._unsent += data


class ConnectionPool:
    """Connections to one server; grows with the number of threads that use it at the same time. Thread-safe.

    Args:
        target: ``host:port``.
        secure: Shakes hands over a new connection; None for plaintext.
        largest_body_bytes: Longer answers are cut off with an error.
    """

    def __init__(
        self,
        target: str,
        *,
        secure: Callable[[DeadlineSocket], TLSDeadlineSocket] | None = None,
        largest_body_bytes: int = 1 << 20,
    ) -> None:
        self._host, self._port = split_target(target)
        self._secure = secure
        self._largest_body_bytes = largest_body_bytes
        # Each use of it is one step of the interpreter's, and needs no lock: a signal's handler may close in between.
        self._idle: list[Connection] = []
        self._closed = False

    @contextmanager
    def lend(self, deadline: Deadline) -> Iterator[Connection]:
        """Lend a connection, an idle one or a new one. After an error in the block it is closed.

        After a timeout so are all that are idle: what swallowed one of them, such as a router that forgot it, may
        have swallowed the others, too.

        Raises:
            TimeoutError: The deadline passed.
            OSError: The server cannot be reached, or the pool is closed.
        """
        connection = self._take(deadline)
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError):
                self._drop_idle()
            raise
        self._give_back(connection)

    def close(self) -> None:
        """Close what is idle now, and the rest as it comes back."""
        self._closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        while (connection := self._pop()) is not None:
            connection.close()

    def _pop(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _take(self, deadline: Deadline) -> Connection:
        while True:
            if self._closed:
                raise ConnectionError("the transport is closed")
            if (connection := self._pop()) is None:
                return self._open(deadline)
            # Found out before anything is sent, so that no request needs to be sent twice.
            if connection.sock is not None and connection.sock.is_reusable():
                connection.sock.deadline = deadline
                return connection
            connection.close()

    def _give_back(self, connection: Connection) -> None:
        if connection.sock is None:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:  # perhaps too late for close() to see this one
            self._drop_idle()

    def _open(self, deadline: Deadline) -> Connection:
        connection = Connection(self._host, self._port)
        connection.largest_body_bytes = self._largest_body_bytes
        plain = connect(self._host, self._port, deadline)
        connection.sock = plain if self._secure is None else self._secure(plain)
        return connection
