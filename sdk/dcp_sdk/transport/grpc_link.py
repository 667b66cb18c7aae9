"""One gRPC connection that never turns into another one unseen.

A gRPC channel reconnects by itself, also in the middle of a call, and does not tell to whom. The server that
answers after that may serve another head. So each link keeps one stream open on which nothing is ever sent: a
stream lives and dies with its connection. Its end and the answers of later calls arrive through the same queue,
in order: an answer that arrives while the stream lives came over the connection that was checked.

A connection that a router forgot does not end: it swallows what is sent, for a quarter of an hour. So a call without
an answer in time makes the link suspect, until an answer comes over it.

A call that nobody waits for any longer is not cancelled, and its server is told a later deadline: a request that ends
from both sides at once may crash Triton before 25.04 (triton-inference-server/server#8034), with all that it serves.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from ..deadline import Deadline

__all__ = ["GrpcLink", "LinkClosed", "LinkLost"]

_LATE_S = 1.5
"""An answer may come this much after its deadline, to nobody; then gRPC ends the call."""
_LINGER_S = 2.0
"""Until a link that was given up is closed: late answers have come, and gRPC's thread that watches the channel has
ended, which takes it a fifth of a second and fails if the channel is closed before."""


class LinkClosed(ValueError):
    """The link was closed before anything was sent."""


class LinkLost(Exception):
    """The connection ended; what came over the channel since then may be somebody else's.

    Args:
        code: Status with which the connection's stream ended.
        details: The words for it.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class GrpcLink:
    """A channel for as long as its first connection lives. Thread-safe.

    Args:
        target: ``host:port``.
        credentials: For TLS; None for plaintext.
        options: Channel arguments.
        metadata: Sent with each call.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, int | str]],
        metadata: Mapping[str, str],
    ) -> None:
        self._metadata = tuple(metadata.items())
        self._channel = (
            grpc.insecure_channel(target, options=options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=options)
        )
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.was_ready = False
        """Whether the connection ever came about, TLS included."""
        self._closed = self._retired = self._suspect = False
        # Whoever handles a signal may hold it already.
        self._sending = threading.RLock()
        self._calls: set[Any] = set()
        self._late: set[Any] = set()
        self._nothing: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ended = False
        try:
            self._stream = self.stub.ModelStreamInfer(iter(self._nothing.get, None), metadata=self._metadata)
            # The thread that waits for something to send ends with the stream.
            if not self._stream.add_callback(self._end):
                self._end()
            self._channel.subscribe(self._notice)
        except BaseException:  # no thread can be had: those that were go with the channel
            self._end()
            self._channel.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the first connection still lives."""
        return not self._ended

    @property
    def trusted(self) -> bool:
        """Whether the next call should go over it: it lives, and the last call was answered."""
        return self.alive and not self._suspect

    def call(
        self, method: str, request: Any, deadline: Deadline, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Any:
        """Call ``method`` of Triton's service, once, with ``headers`` besides those of each call.

        Raises:
            TimeoutError: The deadline passed.
            LinkLost: An answer came, but perhaps over another connection.
            grpc.RpcError: The call failed.
            LinkClosed: Nothing was sent.
            ValueError: The link was closed meanwhile.
        """
        remaining_s = deadline.remaining_s()
        metadata = (*self._metadata, *headers.items())
        with self._sending:  # so that close() sees this call, or this call sees it
            if self._closed:
                raise LinkClosed("the link is closed")
            call = getattr(self.stub, method).future(request, timeout=remaining_s + _LATE_S, metadata=metadata)
            self._calls.add(call)
        try:
            if self._closed:  # by a signal's handler, just then
                call.cancel()
            # By the clock that never jumps: gRPC's own wait ends early where somebody sets the device's clock.
            ended: queue.SimpleQueue[None] = queue.SimpleQueue()
            call.add_done_callback(lambda _: ended.put(None))
            try:
                ended.get(timeout=remaining_s)
            except queue.Empty:
                self._late.add(call)  # gRPC cancels a call that nobody holds
                call.add_done_callback(self._late.discard)
                self._suspect = True
                raise TimeoutError("the deadline has passed") from None
            answer = call.result()
            if not self.alive:
                raise LinkLost(self._stream.code(), str(self._stream.details()))
        except grpc.FutureCancelledError as error:
            raise ValueError("the link was closed") from error
        except grpc.RpcError as error:
            # Not found: perhaps the head was exchanged, and a new connection asks before the next payload.
            self._suspect = error.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.NOT_FOUND}
            raise
        finally:
            self._calls.discard(call)
            if self._retired and not self._calls:
                self.close()
        self._suspect = False
        return answer

    def retire(self) -> None:
        """Close as soon as the calls that are under way have ended, each by its deadline; at once if it was lost."""
        self._retired = True
        if not self._calls or not self.alive:
            self.close()

    def close(self) -> None:
        """End calls that are under way, and soon the connection. May be called twice."""
        with self._sending:
            if self._closed:
                return
            self._closed = True
        self._channel.unsubscribe(self._notice)
        self._cancel_stream()
        for call in tuple(self._calls):
            call.cancel()
        later = threading.Timer(_LINGER_S, self._channel.close)
        later.daemon = True
        try:
            later.start()
        except RuntimeError:  # no thread can be had now
            self._channel.close()

    def _notice(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self.was_ready = True
        elif self.was_ready:
            # A server that says goodbye waits for the streams to end; calls that it has read may complete.
            self._cancel_stream()

    def _cancel_stream(self) -> None:
        self._end()
        self._stream.cancel()

    def _end(self) -> None:
        # By the thread that handles answers, before it comes to those that arrived after the stream ended.
        self._ended = True
        self._nothing.put(None)
