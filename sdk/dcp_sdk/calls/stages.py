"""The stages of a request, for all who make one: ``predict``, ``predict_batch``, streams, and the async client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract import Contract
from ..deadline import Deadline
from ..errors import (
    ContractMismatch,
    DCPError,
    DeadlineExceeded,
    PrivacyGuardError,
    ServerError,
    ServerRejected,
    ServerUnavailable,
)
from ..events import log
from ..frames import Frame
from ..guard import check_payload
from ..local_head import LocalHead
from ..obfuscate import Obfuscator, Payload
from ..predictions import DEVICE, Prediction, Timings, decode_answer, make_predictions
from ..preprocess import preprocess
from ..stats import Counters
from ..telemetry import Trace, Tracing
from .server import Answer, Sends
from .servers import Servers

__all__ = ["Request", "Stages"]

_LOCAL_SHARE = 0.2
"""Of the time that is left before the network, for the head on the device."""


@dataclass(slots=True)
class Request:
    """A batch of pictures on its way; each stage adds what it found. Belongs to one thread at a time."""

    deadline: Deadline
    started: float = field(default_factory=time.perf_counter)
    """Value of ``time.perf_counter()`` when its first stage began."""
    frames: list[Frame] = field(default_factory=list)
    payload: Payload = field(default=(), repr=False)
    """What passed the guard, and nothing else, leaves the device."""
    server: str = ""
    failure: str | None = None
    """Class of the error that kept servers from answering, where the head on the device did."""
    probabilities: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    sends: Sends = field(default_factory=Sends)
    times_ms: dict[str, float] = field(default_factory=dict)
    tracing: Tracing | None = None
    """Starts its trace, where somebody wants one."""
    trace: Trace | None = None
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.started

    def begin(self) -> None:
        """Start the trace, with what was done before: a frame of a stream was captured, and could have given way."""
        if self.tracing is not None:
            self.trace = self.tracing(self.started)
            if self.times_ms:
                self.trace.past("capture", self.started, self._last)

    def stage(self, name: str, words: str | None = None) -> AbstractContextManager[None]:
        """Be in a stage for the length of the block: it began when the last one ended.

        Raises:
            DeadlineExceeded: It has ``words`` and left no time.
        """
        lap = _Lap(self, f"{name}_ms", words)
        return lap if self.trace is None else _traced(self.trace.stage(name, self._last), lap)

    def end(self, error: Exception | None = None) -> None:
        """Tell the trace, if there is one, how it ended."""
        if self.trace is not None:
            facts: dict[str, str | int] = {"dcp.pictures": len(self.frames), "dcp.sends": self.sends.count}
            if self.server:
                facts["server.address"] = self.server
            self.trace.end(facts, error)

    def lap(self, name: str, stage: str | None = None) -> None:
        """Add the time since the last lap to ``name``; a stage with words for it must have left some time.

        Raises:
            DeadlineExceeded: It did not.
        """
        last, self._last = self._last, time.perf_counter()
        self.times_ms[name] = self.times_ms.get(name, 0.0) + (self._last - last) * 1000
        if stage is not None:
            self.deadline.check(stage)

    def timings(self) -> Timings:
        """Tell how long each stage took, up to the last lap."""
        return Timings(**self.times_ms, total_ms=(self._last - self.started) * 1000)


class _Lap:
    """A block whose time is added when it ends well. A class, since a generator costs a call some microseconds more."""

    __slots__ = ("_name", "_request", "_words")

    def __init__(self, request: Request, name: str, words: str | None) -> None:
        self._request, self._name, self._words = request, name, words

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._request.lap(self._name, self._words)


@contextmanager
def _traced(span: AbstractContextManager[None], lap: _Lap) -> Iterator[None]:
    """Be inside of both: a stage that left no time has failed."""
    with span, lap:
        yield


class Stages:
    """What happens to a request, one stage after the other. Thread-safe; each request is in one stage at a time.

    Args:
        contract: What may leave, and what is answered.
        obfuscator: The device graph.
        servers: Who is asked.
        local: Who is asked where no server answers, or None.
        counters: Told about each request.
    """

    def __init__(
        self,
        contract: Contract,
        obfuscator: Obfuscator,
        servers: Servers,
        local: LocalHead | None,
        counters: Counters,
    ) -> None:
        self._contract = contract
        self._obfuscator = obfuscator
        self._servers = servers
        self._local = local
        self._counters = counters
        self._alone = ""
        """Why the device answers itself; empty while a server does."""

    def capture(self, request: Request, frames: Iterable[Frame], *, crop: bool) -> None:
        """Take the frames, one by one; with ``crop`` keep only what the device graph takes of each.

        Raises:
            FrameError: One is not a picture, or none came.
            DeadlineExceeded: It took too long.
        """
        spec = self._contract.preprocessing
        try:
            with request.stage("capture", "capture"):
                for frame in frames:
                    kept = replace(frame, image_rgb=preprocess(frame.image_rgb, spec)) if crop else frame
                    request.frames.append(kept)
                    request.deadline.check("capture")
        except Exception as error:
            self._failed(request, error)
            raise

    def obfuscate(self, request: Request) -> None:
        """Crop, run the device graph, and let the guard look at what comes out: pixels stop here.

        Raises:
            FrameError: A frame is not a picture.
            BundleError: The device graph failed.
            RuntimeUnavailable: Memory ran out, or the device was reset.
            PrivacyGuardError: The payload is not what the contract says.
            DeadlineExceeded: It took too long.
        """
        try:
            request.lap("queue_ms", "waiting for the device graph")
            spec = self._contract.preprocessing
            with request.stage("preprocess", "preprocessing"):
                pixels = np.array([preprocess(frame.image_rgb, spec) for frame in request.frames])
            with request.stage("obfuscate", "the device graph"):
                raw = self._obfuscator.run(pixels, request.deadline)
            with request.stage("guard", "the guard"):
                request.payload = self._guarded(raw)
        except Exception as error:
            self._failed(request, error)
            raise

    def ask(self, request: Request) -> None:
        """Let a server answer, or the head on the device where that is wanted and no server does.

        Raises:
            DeadlineExceeded: No time was left to ask anybody, or for the head on the device.
            ServerError: No valid answer in time.
            ContractMismatch: A server has another head now.
        """
        try:
            request.lap("queue_ms", "waiting for the network")
            with request.stage("network"):
                answer = self._answer(request)
            with request.stage("decode"):
                request.probabilities, request.server = self._decoded(request, answer)
        except Exception as error:
            self._failed(request, error)
            raise
        finally:
            self._count_sends(request)
        self._counters.hid(request.sends.failures)
        request.end()

    def finish(self, request: Request, sequence: int = 0) -> list[Prediction]:
        """Put together what the caller gets; ``sequence`` is the number of the first picture."""
        assert request.probabilities is not None
        request.lap("queue_ms")
        timings, locally = request.timings(), request.server == DEVICE
        self._counters.answered(timings, pictures=len(request.frames), locally=locally)
        return make_predictions(
            self._contract,
            request.frames,
            request.payload,
            request.probabilities,
            timings,
            provider=self._obfuscator.provider,
            server=request.server,
            failure=request.failure,
            sends=request.sends.count,
            sequence=sequence,
        )

    def _guarded(self, raw: Payload) -> Payload:
        try:
            return check_payload(self._contract, raw)
        except PrivacyGuardError:
            sentence = "the guard refused a payload of the contract %(digest)s: nothing was sent"
            log("guard_refused", sentence, digest=self._contract.digest[:12])
            raise

    def _answer(self, request: Request) -> Answer:
        payload, deadline, sends = request.payload, request.deadline, request.sends
        if self._local is None:
            return self._servers.infer(payload, deadline, sends)
        try:
            return self._servers.infer(payload, Deadline((1 - _LOCAL_SHARE) * deadline.left_s()), sends)
        except (ServerError, ContractMismatch, DeadlineExceeded) as failure:
            return self._locally(request, self._local, failure)

    def _decoded(self, request: Request, answer: Answer) -> tuple[npt.NDArray[np.float32], str]:
        """Return the probabilities and who gave them: the head on the device, if there is one, in place of nonsense."""
        try:
            probabilities = decode_answer(self._contract, answer.values, len(request.frames))
        except ServerRejected as failure:
            if self._local is None or answer.address == DEVICE:
                raise
            request.sends.failures[type(failure).__name__] += 1
            return self._decoded(request, self._locally(request, self._local, failure))
        if answer.address != DEVICE:
            self._alone = ""
        return probabilities, answer.address

    def _locally(self, request: Request, head: LocalHead, failure: DCPError) -> Answer:
        """Let the head on the device answer, and do not let it pass in silence."""
        values = self._head_values(request, head, failure)
        kind = request.failure = type(failure).__name__
        # What may pass is one reason: an outage goes to and fro between its classes.
        reason = "no server" if isinstance(failure, ServerUnavailable | DeadlineExceeded) else kind
        before, self._alone = self._alone, reason
        if before != reason:
            log("answered_locally", "no server answers (%(error)s): the head on the device does", error=kind)
        return Answer(values, DEVICE, request.sends.count)

    @staticmethod
    def _head_values(request: Request, head: LocalHead, failure: DCPError) -> npt.NDArray[Any]:
        try:
            return head.answer(request.payload, request.deadline)
        except DeadlineExceeded:
            count = request.sends.count
            sent = f"The payload was handed to a connection {count} time(s)" if count else "Nothing was sent"
            raise DeadlineExceeded(
                f"expected an answer within {request.deadline.timeout_s:.3g} s, but no server gave one "
                f"({type(failure).__name__}) and the head on the device did not end in time. {sent}. "
                "Allow more with Timeouts(predict_s=…), or look into the load of this device."
            ) from failure

    def _failed(self, request: Request, error: Exception) -> None:
        self._counters.failed(error)
        request.end(error)

    def _count_sends(self, request: Request) -> None:
        sends = request.sends
        self._counters.add(
            sends=sends.count,
            retries=max(0, sends.rounds - 1),
            failovers=request.server not in ("", DEVICE, self._servers.first.address),
            bytes_sent=sends.count * sum(tensor.nbytes for tensor in request.payload),
        )
