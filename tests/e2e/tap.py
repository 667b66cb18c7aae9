"""A wire tap: a TCP proxy that keeps every byte which the device sends, and can go silent like a dying network."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Tap:
    """Forwards each connection to ``target``; records what goes there."""

    def __init__(self, target: int) -> None:
        self.target = target
        """Port on this machine."""
        self.hold = threading.Event()
        """While set, nothing comes back to the device."""
        self.sent = bytearray()
        """All that the device sent, over all connections."""
        self._arrived = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """Where the device connects."""
        port: int = self._listener.getsockname()[1]
        return port

    def wait_for(self, needle: bytes, timeout_s: float = 10) -> bool:
        """Wait until the device has sent ``needle``."""
        with self._arrived:
            return self._arrived.wait_for(lambda: needle in self.sent, timeout_s)

    def close(self) -> None:
        """End all connections and threads."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                device, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:  # nobody is there: the device finds the connection closed, and may still have sent
                    with contextlib.suppress(OSError):
                        device.settimeout(0.2)
                        self._record(device.recv(1 << 16))
                    device.close()
                    continue
                self._sockets += [device, server]
                for source, sink in ((device, server), (server, device)):
                    thread = threading.Thread(target=self._forward, args=(source, sink, source is device))
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket, from_device: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if from_device:
                    self._record(data)
                elif self.hold.is_set():
                    continue
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _record(self, data: bytes) -> None:
        with self._arrived:
            self.sent += data
            self._arrived.notify_all()


@contextlib.contextmanager
def tap(target: int) -> Iterator[Tap]:
    """Listen between the device and ``target`` for the length of the block."""
    listening = Tap(target)
    try:
        yield listening
    finally:
        listening.close()
