"""The client: a picture goes in, a prediction comes out, and the server never sees the picture."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from itertools import chain, islice
from os import PathLike
from types import TracebackType
from typing import Self, SupportsIndex, TypeVar

from ._at_exit import close_at_exit
from .aside import Aside
from .bundles.bundle import Bundle
from .bundles.manifest import Manifest
from .bundles.privacy_report import PrivacyReport
from .bundles.signing_keys import KeySource
from .calls.batches import several, size_of_batches
from .calls.breaker import TRANSIENT
from .calls.gate import Gate
from .calls.pipeline import Pipeline, check_in_flight
from .calls.servers import Servers
from .calls.stages import Request, Stages
from .calls.under_way import Trip
from .camera import Camera
from .config import CircuitBreaker, Device, OnFailure, Retries, ServerAddress, Timeouts, check_kinds
from .deadline import Deadline
from .errors import ConfigError, ServerError
from .frames import Frame, FrameLike, FrameSource, as_frame
from .local_head import LocalHead
from .obfuscate import Obfuscator, Payload
from .predictions import Prediction
from .runtime import Provider
from .security import Security
from .sources import SourceLike, open_source
from .stats import Counters, Stats
from .telemetry import Telemetry, Tracing
from .tracebacks import forgetful
from .transport import Transport, open_transports

__all__ = ["Observer", "PrivateClient"]

_DEFAULT_TIMEOUTS = Timeouts()
_DEFAULT_RETRIES = Retries()
_DEFAULT_BREAKER = CircuitBreaker()
_READING = "reading and decoding the picture"
_WAKE_S = 0.5
"""What a loaded machine may take to wake a thread whose time is over."""

T = TypeVar("T")

Observer = Callable[[Frame, Payload, Prediction], object]
"""What ``stream(observe=…)`` takes: it sees each frame, what was sent of it, and the prediction."""


class PrivateClient:
    """Uses a task head in the cloud without showing it the picture. Thread-safe, for the process that made it.

    Making one checks all that can be checked before the first picture: who signed the bundle, its hashes, the
    graph, and that the served head was exported together with this bundle. A request ends by its deadline, whatever
    happens. Within it, a failure that may pass by itself is tried again and the next server is asked, with the very
    same payload: a server that broke off may see it twice. Nothing else of a picture is ever sent.

    >>> with PrivateClient("bundles/gender", "grpc://localhost:8001") as client:  # doctest: +SKIP
    ...     print(client.predict("face.jpg").label)

    Args:
        bundle: Folder of the bundle, or its archive (``.dcp``).
        server: ``grpc://HOST:PORT``, ``http://HOST:PORT``, ``grpcs://`` and ``https://`` for TLS, ``HOST:PORT``
            (gRPC) or ``memory://MODEL_REPOSITORY``; or several, in the order in which they are preferred.
        device: Where the device graph runs: ``cpu``; ``cuda``, all of it on the GPU or an error; ``tensorrt``, the same
            by TensorRT where it can; ``auto``, CUDA if it works.
        threads: CPU threads of the device graph; None leaves the number to ONNX Runtime.
        cuda_graph: On the GPU, capture the device graph once for each batch size, and replay it.
        timeouts: How long a request may take in all.
        retries: How often to try again what may pass by itself; ``Retries.none()`` sends everything once.
        breaker: When to leave a server alone that keeps failing.
        security: Certificates for TLS, and the key of a Triton with restricted protocols.
        on_failure: ``raise`` the error if no server answers, or let the bundle's own head answer on the device
            (``local``); such a prediction is marked, and a fifth of the deadline is kept for it.
        headers: Sent with each request.
        trusted_keys: Ed25519 public keys (paths of PEM files, or PEM as bytes), one of which must have signed the
            bundle as it is; None takes unsigned bundles too.
        transport: Used instead of ``server``; the client closes it.
        telemetry: Exports a trace of each call, and :meth:`stats` as metrics, through OpenTelemetry.
        camera: Number, URL or :class:`Camera` for ``predict()`` and ``stream()`` without arguments. A
            :class:`Camera` of yours stays open; one that is made here is closed with the client.

    Raises:
        ConfigError: An option makes no sense, or the bundle carries no head for ``on_failure="local"``.
        BundleError: The bundle is missing or damaged, or its privacy report is about another one.
        SignatureError: No trusted key signed exactly this bundle, or its signature is malformed.
        RuntimeUnavailable: ``device`` is ``cuda`` or ``tensorrt``, and it cannot run the whole graph.
        ContractMismatch: The served head does not belong to this bundle.
        ServerError: No server is well: the first is down (``ServerUnavailable``), slow (``ServerTimeout``) or refuses
            (``ServerRejected``). With ``on_failure="local"`` only a refusal is raised.
        FrameError: The camera does not open.
    """

    privacy_report: PrivacyReport | None
    """What was measured of this very bundle; None if nothing was. Look at ``privacy_report.protected``."""
    timeouts: Timeouts
    """How long a request may take in all."""
    manifest: Manifest
    """The bundle's manifest; ``manifest.contract`` says what leaves the device."""

    def __init__(
        self,
        bundle: str | PathLike[str],
        server: str | ServerAddress | Sequence[str | ServerAddress] | None = None,
        *,
        device: Device = "auto",
        threads: int | None = None,
        cuda_graph: bool = False,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        retries: Retries = _DEFAULT_RETRIES,
        breaker: CircuitBreaker = _DEFAULT_BREAKER,
        security: Security | None = None,
        on_failure: OnFailure = "raise",
        headers: Mapping[str, str] | None = None,
        trusted_keys: Sequence[KeySource] | None = None,
        transport: Transport | None = None,
        telemetry: Telemetry | None = None,
        camera: int | str | Camera | None = None,
    ) -> None:
        check_kinds(
            bundle=(bundle, str | PathLike),
            server=(server, str | ServerAddress | Sequence | None),
            threads=(threads, int | None),
            cuda_graph=(cuda_graph, bool),
            timeouts=(timeouts, Timeouts),
            retries=(retries, Retries),
            breaker=(breaker, CircuitBreaker),
            security=(security, Security | None),
            headers=(headers, Mapping | None),
            trusted_keys=(trusted_keys, Sequence | None),
            transport=(transport, Transport | None),
            telemetry=(telemetry, Telemetry | None),
            camera=(camera, int | str | Camera | None),
        )
        for key in trusted_keys or ():
            check_kinds(trusted_keys=(key, str | PathLike | bytes))
        if on_failure not in ("raise", "local"):
            raise ConfigError(f"on_failure: expected 'raise' or 'local', got {on_failure!r}.")
        self.timeouts = timeouts
        self._gate = Gate()
        self._aside = Aside()
        with ExitStack() as opened:
            transports = open_transports(server, transport, headers=headers, security=security)
            for one in transports:
                opened.callback(one.close)
            files = Bundle.open(bundle, trusted_keys=trusted_keys)
            self.manifest = Manifest.load(files)
            contract = self.manifest.contract
            self.privacy_report = PrivacyReport.load(files, contract)
            local = LocalHead(files, contract, threads=threads) if on_failure == "local" else None
            self._obfuscator = Obfuscator(files, contract, device=device, threads=threads, cuda_graph=cuda_graph)
            standby = local is not None
            self._servers = Servers(transports, contract, retries=retries, breaker=breaker, standby=standby)
            with suppress(*TRANSIENT) if local else nullcontext():
                self._servers.connect(timeouts.connect_s)
            self._counters = Counters()
            self._stages = Stages(contract, self._obfuscator, self._servers, local, self._counters)
            self._telemetry = telemetry
            if telemetry is not None:
                opened.callback(telemetry.watch(self.manifest.name, self._read_stats))
            self._pipelines: set[Pipeline] = set()
            if isinstance(camera, int | str):
                camera = opened.enter_context(Camera(camera))
            self._camera = camera
            self._opened = opened.pop_all()
        close_at_exit(self)

    @property
    def provider(self) -> Provider:
        """What the device graph really runs on: ``cpu``, ``cuda`` or ``tensorrt``."""
        return self._obfuscator.provider

    @property
    def server(self) -> str:
        """Address of the task head; of several, in the order in which they are asked, with commas between."""
        return ", ".join(self._servers.addresses)

    def stats(self) -> Stats:
        """Tell what this client did so far, in numbers.

        Raises:
            ConfigError: Another process made the client.
        """
        self._gate.check_process()
        return self._read_stats()

    @forgetful
    def predict(self, frame: FrameLike | None = None) -> Prediction:
        """Answer for one picture.

        Args:
            frame: Path or bytes of a picture file, RGB array uint8 ``(H, W, 3)``, or :class:`Frame`. None
                takes the newest frame of the client's camera.

        Raises:
            ConfigError: The client is closed, has no camera, or was made by another process.
            FrameError: It is not a picture, or the camera gave none.
            BundleError: The device graph failed.
            RuntimeUnavailable: Memory ran out, or the device was reset.
            PrivacyGuardError: The payload is not what the contract says; nothing was sent.
            DeadlineExceeded: ``timeouts.predict_s`` seconds were over before anything was sent.
            ServerError: No valid answer within that time, and no head on the device.
            ContractMismatch: A server was started anew with another head. It got no payload.
        """
        return self._answer([frame], Deadline(self.timeouts.predict_s))[0]

    @forgetful
    def predict_batch(
        self, frames: Iterable[FrameLike], *, batch_size: SupportsIndex | None = None
    ) -> list[Prediction]:
        """Answer for many pictures, several in a request, each request with its own deadline.

        Pictures are taken one by one, by the deadline of their request, and cropped at once: only what the device
        graph takes is kept. Choose a smaller batch where reading them takes long.

        Args:
            frames: Each as :meth:`predict` takes it.
            batch_size: Pictures in a request, from 1 to the contract's ``head.max_batch_size``; None takes that.

        Returns:
            One prediction per picture, in order. Their timings are those of the whole request.

        Raises:
            ConfigError: ``batch_size`` is out of range, ``frames`` is one picture, or the client is closed.
            DCPError: As :meth:`predict`, for the first request that fails; none is sent after it.
        """
        return list(chain.from_iterable(self._batches(frames, batch_size)))

    def stream(
        self, source: SourceLike | None = None, *, in_flight: int = 2, observe: Observer | None = None
    ) -> Generator[Prediction, None, None]:
        """Answer for one frame after the other, in order, while the next ones are captured and computed.

        Capture, device graph and network work at the same time, in threads that end with the generator. Of a live
        source, such as a camera, the newest frame wins: frames that come while the device is at work are dropped, and
        so is an answer that waited for the caller longer than a new one takes. Of any other source every frame is
        answered, and read no faster than that. Each frame has the deadline of a request: for the device graph, and
        for the network once one of ``in_flight`` is free. Waiting between them takes no longer than a request, and does
        not count.

        Args:
            source: Camera number or URL, video file, folder of pictures, iterable of arrays or frames, or a
                :class:`FrameSource`. None takes the client's camera. What is opened here is closed when
                the generator ends; a source of yours stays open, and may have been read some frames ahead.
            in_flight: Requests on the network at the same time, from 1 to 16.
            observe: Called in the caller's thread, before each prediction is given, with the frame, what was sent of
                it (arrays ``(1, *shape)`` in the order of ``contract.payload``) and the prediction: to show both.

        Raises:
            ConfigError: At once, if ``in_flight`` is out of range.
            DCPError: As :meth:`predict`, for the first frame that fails; those before it are given first.
        """
        check_in_flight(in_flight)
        return self._stream(source, in_flight, observe)

    def _stream(
        self, source: SourceLike | None, in_flight: int, observe: Observer | None
    ) -> Generator[Prediction, None, None]:
        """Begin with the first frame that is asked for: a generator that nobody reads must hold no thread."""
        pipeline = self._start(source, in_flight)
        del source  # an error's traceback would show it
        try:
            while (trip := pipeline.wait()) is not None:
                yield self._finish(trip, observe)
                self._gate.check_process()
        finally:
            self._end(pipeline)

    def close(self) -> None:
        """Let calls of other threads end by their deadlines, then close connections and the camera opened here.

        Streams end with :class:`ConfigError`, and so do later calls. May be called twice. Does nothing in a process
        that did not make the client: its connections and threads are those of the other.
        """
        if not self._gate.is_ours:
            return
        self._gate.shut()
        pipelines = list(self._pipelines)
        for pipeline in pipelines:
            pipeline.stop(Gate.error())
        self._gate.close(self.timeouts.predict_s + _WAKE_S)
        for pipeline in pipelines:
            pipeline.close()
        self._servers.stop()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PrivateClient {self.manifest.name!r} on {self.provider}, head at {self.server}>"

    # What the async client uses too.

    def _answer(
        self, pictures: Iterable[FrameLike | None], deadline: Deadline, *, crop: bool = False
    ) -> list[Prediction]:
        """Take the frame's journey, one stage per line, by one deadline for all of them."""
        with self._gate.entered():
            request = Request(deadline, tracing=self._tracing())
            request.begin()
            self._stages.capture(request, (self._take(picture, deadline) for picture in pictures), crop=crop)
            self._stages.obfuscate(request)
            try:
                self._stages.ask(request)
            except ServerError:
                if self._servers.is_stopped:  # it was this client that closed the connection
                    raise Gate.error() from None
                raise
        return self._stages.finish(request)

    def _batches(
        self, frames: Iterable[FrameLike], batch_size: SupportsIndex | None, begin: Callable[[], Deadline] | None = None
    ) -> Iterator[list[Prediction]]:
        """Answer one request after the other; ``begin`` gives each its deadline, which else begins with the request."""
        begin = begin or (lambda: Deadline(self.timeouts.predict_s))
        self._gate.check()
        size = size_of_batches(batch_size, self.manifest.contract.head.max_batch_size)
        remaining = several(frames)
        while True:
            deadline = begin()  # before the first picture: waiting for it counts as well
            first = list(islice(remaining, 1))
            if not first:
                return
            yield self._answer(chain(first, islice(remaining, size - 1)), deadline, crop=size > 1)

    def _start(self, source: SourceLike | None, in_flight: int, notify: Callable[[], None] = lambda: None) -> Pipeline:
        """Begin a stream; who takes its answers ends it with :meth:`_end`."""
        self._gate.check()
        tracing = self._tracing()
        pipeline = Pipeline(
            lambda: self._open_source(source),
            lambda frame, started: Request(Deadline(self.timeouts.predict_s), started, [frame], tracing=tracing),
            self._gate.guarding(self._stages.obfuscate),
            self._gate.guarding(self._stages.ask),
            self._counters,
            in_flight=in_flight,
            join_s=self.timeouts.predict_s + _WAKE_S,
            notify=notify,
        )
        self._pipelines.add(pipeline)
        if self._gate.is_shut:  # perhaps too late for close() to see this stream
            pipeline.stop(Gate.error())
        return pipeline

    def _end(self, pipeline: Pipeline) -> None:
        if not self._gate.is_ours:
            return
        pipeline.close()
        self._pipelines.discard(pipeline)

    def _finish(self, trip: Trip, observe: Observer | None) -> Prediction:
        request = trip.request
        (prediction,) = self._stages.finish(request, trip.sequence)
        if observe is not None:
            observe(request.frames[0], request.payload, prediction)
        return prediction

    def _read_stats(self) -> Stats:
        """For telemetry, which adds up the clients of a fork's both sides: none may fail for all."""
        return self._counters.read(self._servers.breakers())

    def _tracing(self) -> Tracing | None:
        """Remember whose call this is, for its trace; None where nobody wants one."""
        return None if self._telemetry is None else self._telemetry.tracing(self.manifest.name, self.provider)

    def _take(self, picture: FrameLike | None, deadline: Deadline) -> Frame:
        if picture is None:
            return self._require_camera().read(deadline.left_s())
        if isinstance(picture, str | PathLike | bytes):  # a drive may hang, and a small file take long to decode
            return self._aside.do(lambda: as_frame(picture), deadline, _READING)
        return as_frame(picture)

    def _read_file(self, work: Callable[[], T]) -> T:
        """Read a picture of a stream, which has as much time for it as a request has."""
        return self._aside.do(work, Deadline(self.timeouts.predict_s), _READING)

    def _open_source(self, source: SourceLike | None) -> tuple[FrameSource, bool]:
        """Give the source, and say whether it was opened here."""
        if source is None:
            return self._require_camera(), False
        opened = open_source(source, reading=self._read_file)
        return opened, opened is not source

    def _require_camera(self) -> Camera:
        if self._camera is None:
            raise ConfigError("predict() without a picture needs a camera: PrivateClient(…, camera=0).")
        return self._camera
