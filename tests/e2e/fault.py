"""What can go wrong between device and server, for the tap to do on purpose."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from dcp_sdk import ServerError, ServerRejected, ServerTimeout, ServerUnavailable

Send = Callable[[bytes], object]


class Cut(Exception):
    """End the connection: with RST, or with a goodbye.

    Args:
        reset: Which of the two.
    """

    def __init__(self, reset: bool = True) -> None:
        super().__init__()
        self.reset = reset


class Fault:
    """Nothing goes wrong. The others override what they spoil."""

    def accepted(self) -> None:
        """Treat a new connection."""

    def request(self, data: bytes, send: Send) -> None:
        """Treat a piece of what the device says."""
        send(data)

    def reply(self, data: bytes, send: Send) -> None:
        """Treat a piece of what the server says."""
        send(data)


class ResetBeforeRequest(Fault):
    """New connections and those in use are reset before a byte gets through."""

    def accepted(self) -> None:
        raise Cut

    def request(self, data: bytes, send: Send) -> None:
        raise Cut


class ResetAfterRequest(Fault):
    """The server gets what the device says, and its answer meets a reset."""

    def reply(self, data: bytes, send: Send) -> None:
        raise Cut


class ResetInReply(Fault):
    """Half of a piece of the answer comes, then a reset."""

    def reply(self, data: bytes, send: Send) -> None:
        send(data[: len(data) // 2])
        raise Cut


class TruncatedReply(Fault):
    """Half of a piece of the answer comes, then a goodbye."""

    def reply(self, data: bytes, send: Send) -> None:
        send(data[: len(data) // 2])
        raise Cut(reset=False)


class SlowReply(Fault):
    """The answer drips, a byte at a time."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def reply(self, data: bytes, send: Send) -> None:
        for byte in data:
            send(bytes([byte]))
            if self.over.wait(0.1):
                raise Cut


class HalfOpen(Fault):
    """Connections are taken, and nothing gets through in either direction."""

    def request(self, data: bytes, send: Send) -> None:
        pass

    def reply(self, data: bytes, send: Send) -> None:
        pass


class Garbage(Fault):
    """Noise comes in place of the answer."""

    def reply(self, data: bytes, send: Send) -> None:
        send(random.Random(len(data)).randbytes(len(data)))


class TwiceReply(Fault):
    """Every piece of the answer comes twice."""

    def reply(self, data: bytes, send: Send) -> None:
        send(data)
        send(data)


class SwappedReply(Fault):
    """The halves of each piece of the answer come in the wrong order."""

    def reply(self, data: bytes, send: Send) -> None:
        half = len(data) // 2
        send(data[half:] + data[:half])


FAULTS: dict[str, tuple[type[Fault], tuple[type[ServerError], ...]]] = {
    "reset before the request": (ResetBeforeRequest, (ServerUnavailable,)),
    "reset after the request": (ResetAfterRequest, (ServerUnavailable,)),
    "reset in the reply": (ResetInReply, (ServerUnavailable, ServerRejected)),
    "truncated reply": (TruncatedReply, (ServerUnavailable, ServerRejected)),
    "slow reply": (SlowReply, (ServerTimeout,)),
    "half-open": (HalfOpen, (ServerTimeout,)),
    "garbage": (Garbage, (ServerUnavailable, ServerRejected)),
    "reply twice": (TwiceReply, (ServerUnavailable, ServerRejected, ServerTimeout)),
    "reply in the wrong order": (SwappedReply, (ServerUnavailable, ServerRejected, ServerTimeout)),
}
"""What goes wrong, and the errors of which one must come of it."""
HARMLESS = {"reply twice"}
"""The first of two answers is a right one; the connection must not be used again."""
