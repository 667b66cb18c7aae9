"""An RTSP camera, as far as one client needs it: JPEG in RTP (RFC 2435), over the connection that asked for it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np

from dcp_sdk.preprocess import Image

_QUALITY = 80
"""JPEG's and RTP's: below 100 both scale the very same tables by it, so that none need to be sent."""
_JPEG_TYPE = 1
"""Chroma halved in both directions, no restart markers."""
_PAYLOAD_TYPE = 26
_CLOCK_HZ = 90_000
_PART = 1400
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"


def serve_rtsp(connection: socket.socket, stop: threading.Event, pictures: Iterator[Image], pause_s: float) -> None:
    """Answer what a client asks before it plays, then send pictures until there are no more."""
    asked = connection.makefile("rb")
    while not stop.is_set():
        lines = list(iter(lambda: asked.readline().rstrip(b"\r\n"), b""))
        if not lines:
            return
        method = lines[0].split()[0]
        number = next(line.split(b":")[1].strip().decode() for line in lines if line.lower().startswith(b"cseq:"))
        head, body = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n", ""
        if method == b"OPTIONS":
            head += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == b"DESCRIBE":
            head, body = f"{head}Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n", _SDP
        elif method == b"SETUP":
            head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        connection.sendall(f"{head}\r\n{body}".encode())
        if method == b"PLAY":
            break
    start, sequence = time.monotonic(), 0
    for picture in pictures:
        for packet in _packets(picture, sequence, int((time.monotonic() - start) * _CLOCK_HZ)):
            connection.sendall(packet)
            sequence += 1
        if stop.wait(pause_s):
            return


def _packets(image_rgb: Image, sequence: int, timestamp: int) -> Iterator[bytes]:
    """``$``, channel, length, then RTP header, JPEG header and a part of the scan."""
    height, width, _ = image_rgb.shape
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image_rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    data = jpeg.tobytes()
    start = data.index(b"\xff\xda")
    scan = data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) : -2]
    for offset in range(0, len(scan), _PART):
        part = scan[offset : offset + _PART]
        last = offset + _PART >= len(scan)
        rtp = struct.pack(
            ">BBHII", 0x80, _PAYLOAD_TYPE | (0x80 if last else 0), sequence & 0xFFFF, timestamp & 0xFFFFFFFF, 1
        )
        jpeg_head = struct.pack(">II", offset, _JPEG_TYPE << 24 | _QUALITY << 16 | width // 8 << 8 | height // 8)
        packet = rtp + jpeg_head + part
        yield b"$\0" + struct.pack(">H", len(packet)) + packet
        sequence += 1
