"""The slow network that benchmarks measure over is as slow as it says, and loses nothing."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np

from tests.e2e.link import link


def test_bytes_arrive_in_order_and_never_too_early() -> None:
    def echo() -> None:
        with listener.accept()[0] as connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=echo)
        server.start()
        with link(listener.getsockname()[1], mbit_s=10, round_trip_ms=60) as port:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as device:
                for sent, least_s in ((b"x", 0.06), (np.random.default_rng(0).bytes(100_000), 0.06 + 0.08)):
                    start, got = time.monotonic(), bytearray()
                    device.sendall(sent)
                    while len(got) < len(sent):
                        got += device.recv(1 << 16)
                    assert got == sent
                    assert time.monotonic() - start >= least_s
                device.shutdown(socket.SHUT_WR)
                assert device.recv(1) == b"", "an end gets through, too"
        server.join(10)
        assert not server.is_alive()
