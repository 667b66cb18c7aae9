"""A wire tap: a TCP proxy that keeps every byte which the device sends, and can fail like a network or a server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

from dcp_sdk.serving import TritonServer
from tests.e2e.fault import Cut, Fault
from tests.sdk.helpers import address_of


def port_of(server: TritonServer, scheme: str) -> int:
    """Return the port that a tap needs to stand before ``server``."""
    return int(address_of(server, scheme).rpartition(":")[2])


class Tap:
    """Forwards each connection to ``target``; records what goes there."""

    def __init__(self, target: int) -> None:
        self.target = target
        """Port on this machine; may change, for connections to come."""
        self.hold = threading.Event()
        """While set, nothing comes back to the device."""
        self.fault = Fault()
        """What goes wrong now, on connections that are open and that are to come."""
        self.sent = bytearray()
        """All that the device sent, over all connections."""
        self.streams: list[bytearray] = []
        """The same by connection."""
        self._arrived = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        """Where the device connects."""
        self._sockets: list[socket.socket] = []
        self._forgotten: set[socket.socket] = set()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._start(self._accept, self._listener)

    def wait_for(self, needle: bytes, timeout_s: float = 10) -> bool:
        """Wait until the device has sent ``needle``."""
        with self._arrived:
            return self._arrived.wait_for(lambda: needle in self.sent, timeout_s)

    def refuse(self) -> None:
        """Take no connection any more, and reset those that are open."""
        _end(self._listener)
        self.cut()
        # A socket is reset when the thread that reads it lets go: until then it takes, and records, what comes.
        for thread in self._threads:
            thread.join(10)

    def listen(self) -> None:
        """Take connections again, at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept, self._listener)

    def forget(self) -> None:
        """Let nothing through on connections that are open, and tell nobody, as a router does that forgot them."""
        self._forgotten.update(self._sockets)

    def cut(self) -> None:
        """Reset all connections that are open."""
        for sock in self._take_all():
            _reset(sock)

    def close(self) -> None:
        """End all connections and threads."""
        self._closed = True
        _end(self._listener)
        for sock in self._take_all():
            _end(sock)
        for thread in self._threads:
            thread.join(10)

    def _take_all(self) -> list[socket.socket]:
        with self._arrived:
            sockets, self._sockets = self._sockets, []
        return sockets

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                device, _ = listener.accept()
                with self._arrived:
                    stream = bytearray()
                    self.streams.append(stream)
                self._start(self._serve, device, stream)

    def _serve(self, device: socket.socket, stream: bytearray) -> None:
        try:
            self.fault.accepted()
            server = socket.create_connection(("127.0.0.1", self.target))
        except Cut:
            _reset(device)
            return
        except OSError:  # nobody is there: the device finds the connection closed, and may still have sent
            with contextlib.suppress(OSError):
                device.settimeout(0.2)
                self._record(device.recv(1 << 16), stream)
            _end(device)
            return
        with self._arrived:
            self._sockets += [device, server]
        if self._closed:  # a device that connects once more just then
            for sock in self._take_all():
                _end(sock)
        self._start(self._forward, server, device, None)
        self._forward(device, server, stream)

    def _forward(self, source: socket.socket, sink: socket.socket, stream: bytearray | None) -> None:
        try:
            while data := source.recv(1 << 16):
                if stream is not None:
                    self._record(data, stream)
                if source in self._forgotten:
                    continue
                if stream is not None:
                    self.fault.request(data, sink.sendall)
                elif not self.hold.is_set():
                    self.fault.reply(data, sink.sendall)
            sink.shutdown(socket.SHUT_WR)
        except Cut as cut:
            for sock in (sink, source):
                _reset(sock) if cut.reset else _end(sock)
        except OSError:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def _record(self, data: bytes, stream: bytearray) -> None:
        with self._arrived:
            self.sent += data
            stream += data
            self._arrived.notify_all()


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _reset(sock: socket.socket) -> None:
    """Close without a goodbye, as a crash does: the other side gets RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)  # wakes the thread that reads
    sock.close()


@contextlib.contextmanager
def tap(target: int) -> Iterator[Tap]:
    """Listen between the device and ``target`` for the length of the block."""
    listening = Tap(target)
    try:
        yield listening
    finally:
        listening.fault = Fault()
        listening.close()
