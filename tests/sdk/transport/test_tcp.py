"""Sockets are closed whatever becomes of them."""

from __future__ import annotations

import gc
import select
import socket
import ssl
import struct

import pytest

from dcp_sdk.deadline import Deadline
from dcp_sdk.transport.tcp import connect, secure


def test_what_was_reset_before_the_handshake_is_closed() -> None:
    """``ssl`` itself leaves it open; a warning of that would fail this test."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        plain = connect("127.0.0.1", server.getsockname()[1], Deadline(5))
        accepted, _ = server.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        poll = select.poll()
        poll.register(plain, select.POLLIN)
        assert poll.poll(5000), "the reset has come"
        with pytest.raises(OSError, match="reset"):
            secure(plain, ssl.create_default_context(), "localhost")
    gc.collect()
