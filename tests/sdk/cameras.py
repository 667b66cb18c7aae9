"""Cameras for tests, as IP cameras send: MJPEG over HTTP and JPEG over RTSP. Each is a behaviour for ``listen``."""

from __future__ import annotations

import itertools
import socket
import threading

import cv2
import numpy as np

from tests.sdk.rtsp import serve_rtsp

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"


def part(level: int) -> bytes:
    """Write a frame of one grey as a part of the stream."""
    _, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), level, np.uint8))
    data = jpeg.tobytes()
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data)


def brightening(connection: socket.socket, stop: threading.Event) -> None:
    """About 50 frames a second, each brighter than the one before, up to white, then white."""
    connection.recv(4096)
    connection.sendall(HEAD)
    level = 0
    while not stop.wait(0.02):
        connection.sendall(part(level))
        level = min(level + 2, 255)


def stalling(connection: socket.socket, stop: threading.Event) -> None:
    """Send some frames, then nothing on an open connection."""
    connection.recv(4096)
    connection.sendall(HEAD)
    for _ in range(20):
        connection.sendall(part(100))
    stop.wait()


def ending(connection: socket.socket, stop: threading.Event) -> None:
    """Send some frames, then hang up."""
    connection.recv(4096)
    connection.sendall(HEAD)
    for _ in range(60):
        connection.sendall(part(100))
        stop.wait(0.01)


def brightening_rtsp(connection: socket.socket, stop: threading.Event) -> None:
    """As :func:`brightening`."""
    levels = itertools.chain(range(0, 256, 2), itertools.repeat(255))
    serve_rtsp(connection, stop, (np.full((48, 64, 3), level, np.uint8) for level in levels), 0.02)


def ending_rtsp(connection: socket.socket, stop: threading.Event) -> None:
    """As :func:`ending`."""
    serve_rtsp(connection, stop, itertools.repeat(np.full((48, 64, 3), 100, np.uint8), 60), 0.01)


def silent(connection: socket.socket, stop: threading.Event) -> None:
    """Hear what is asked, and answer nothing."""
    connection.recv(4096)
    stop.wait()


def url(port: int, scheme: str = "http") -> str:
    """Return where a camera that listens at ``port`` is found."""
    return f"{scheme}://127.0.0.1:{port}/stream.mjpg"
