"""Pairs, pictures, and servers that behave badly on purpose."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk.preprocess import Image


@pytest.fixture(scope="session")
def picture() -> Image:
    """Draw a picture with structure, 48 x 64, RGB."""
    y, x = np.mgrid[0:48, 0:64].astype(np.uint8)
    return np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1)


@pytest.fixture
def picture_file(tmp_path: Path, picture: Image) -> Path:
    """Write the same picture as a PNG file, so that decoding gives it back exactly."""
    path = tmp_path / "picture.png"
    assert cv2.imwrite(str(path), picture[..., ::-1])
    return path


@pytest.fixture
def closed_port() -> int:
    """Find a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


Behaviour = Callable[[socket.socket, threading.Event], None]
Listen = Callable[[Behaviour], int]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start TCP servers: ``listen(behaviour)`` gives a port, ``behaviour(connection, stop)`` treats each caller."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    servers: list[socket.socket] = []

    def accept(server: socket.socket, behaviour: Behaviour) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                thread = threading.Thread(target=treat, args=(connection, behaviour))
                thread.start()
                threads.append(thread)

    def treat(connection: socket.socket, behaviour: Behaviour) -> None:
        with connection, contextlib.suppress(OSError):
            behaviour(connection, stop)

    def start(behaviour: Behaviour) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        thread = threading.Thread(target=accept, args=(server, behaviour))
        thread.start()
        threads.append(thread)
        port: int = server.getsockname()[1]
        return port

    yield start
    stop.set()
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join(10)
