"""The client: a picture goes in, a prediction comes out, and the server never sees the picture."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from itertools import islice
from os import PathLike
from types import TracebackType
from typing import Self

import numpy as np

from .breaker import TRANSIENT
from .bundle import Bundle
from .camera import Camera
from .config import CircuitBreaker, Device, OnFailure, Retries, ServerAddress, Timeouts
from .contract import Manifest
from .deadline import Deadline
from .errors import ConfigError, ContractMismatch, ServerError
from .frames import FrameLike, as_frame
from .gate import Gate
from .guard import check_payload
from .local_head import LocalHead
from .obfuscate import Obfuscator, Payload
from .predictions import DEVICE, Prediction, Timings, decode_answer, make_predictions
from .preprocess import preprocess
from .privacy_report import PrivacyReport
from .runtime import Provider
from .security import Security
from .servers import Answer, Sends, Servers
from .signing_keys import KeySource
from .sources import SourceLike, open_source
from .transport import Transport, open_transports

__all__ = ["PrivateClient"]

_DEFAULT_TIMEOUTS = Timeouts()
_DEFAULT_RETRIES = Retries()
_DEFAULT_BREAKER = CircuitBreaker()
_LOCAL_SHARE = 0.2
"""Of the time that is left before the network, for the head on the device."""


class PrivateClient:
    """Uses a task head in the cloud without showing it the picture. Thread-safe.

    Making one checks all that can be checked before the first picture: who signed the bundle, its hashes, the
    graph, and that the served head was exported together with this bundle. A request ends by its deadline, whatever
    happens. Within it, a failure that may pass by itself is tried again and the next server is asked, with the very
    same payload: a server that broke off may see it twice. Nothing but this payload is ever sent.

    >>> with PrivateClient("bundles/gender", "grpc://localhost:8001") as client:  # doctest: +SKIP
    ...     print(client.predict("face.jpg").label)

    Args:
        bundle: Folder of the bundle, or its archive (``.dcp``).
        server: ``grpc://HOST:PORT``, ``http://HOST:PORT``, ``grpcs://`` and ``https://`` for TLS, ``HOST:PORT``
            (gRPC) or ``memory://MODEL_REPOSITORY``; or several, in the order in which they are preferred.
        device: Where the device graph runs: ``cpu``; ``cuda``, all of it on the GPU or an error; ``auto``,
            CUDA if it works.
        threads: CPU threads of the device graph; None leaves the number to ONNX Runtime.
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
        camera: Number, URL or :class:`Camera` for ``predict()`` and ``stream()`` without arguments. A
            :class:`Camera` of yours stays open; one that is made here is closed with the client.

    Raises:
        ConfigError: An option makes no sense, or the bundle carries no head for ``on_failure="local"``.
        BundleError: The bundle is missing or damaged, or its privacy report is about another one.
        SignatureError: No trusted key signed exactly this bundle, or its signature is malformed.
        RuntimeUnavailable: ``device="cuda"``, and CUDA cannot run the whole graph.
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
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        retries: Retries = _DEFAULT_RETRIES,
        breaker: CircuitBreaker = _DEFAULT_BREAKER,
        security: Security | None = None,
        on_failure: OnFailure = "raise",
        headers: Mapping[str, str] | None = None,
        trusted_keys: Sequence[KeySource] | None = None,
        transport: Transport | None = None,
        camera: int | str | Camera | None = None,
    ) -> None:
        if on_failure not in ("raise", "local"):
            raise ConfigError(f"on_failure: expected 'raise' or 'local', got {on_failure!r}.")
        self.timeouts = timeouts
        self._gate = Gate()
        with ExitStack() as opened:
            transports = open_transports(server, transport, headers=headers, security=security)
            for one in transports:
                opened.callback(one.close)
            files = Bundle.open(bundle, trusted_keys=trusted_keys)
            self.manifest = Manifest.load(files)
            contract = self.manifest.contract
            self.privacy_report = PrivacyReport.load(files, contract)
            self._local = LocalHead(files, contract, threads=threads) if on_failure == "local" else None
            self._obfuscator = Obfuscator(files, contract, device=device, threads=threads)
            self._servers = Servers(transports, contract, retries=retries, breaker=breaker)
            with suppress(*TRANSIENT) if self._local else nullcontext():
                self._servers.connect(timeouts.connect_s)
            if isinstance(camera, int | str):
                camera = opened.enter_context(Camera(camera))
            self._camera = camera
            self._opened = opened.pop_all()

    @property
    def provider(self) -> Provider:
        """What the device graph really runs on: ``cpu`` or ``cuda``."""
        return self._obfuscator.provider

    @property
    def server(self) -> str:
        """Address of the task head; of several, in the order in which they are asked, with commas between."""
        return ", ".join(self._servers.addresses)

    def predict(self, frame: FrameLike | None = None) -> Prediction:
        """Answer for one picture.

        Args:
            frame: Path or bytes of a picture file, RGB array uint8 ``(H, W, 3)``, or :class:`Frame`. None
                takes the newest frame of the client's camera.

        Raises:
            ConfigError: The client is closed, or has no camera.
            FrameError: It is not a picture, or the camera gave none.
            BundleError: The device graph failed.
            PrivacyGuardError: The payload is not what the contract says; nothing was sent.
            DeadlineExceeded: ``timeouts.predict_s`` seconds were over before anything was sent.
            ServerError: No valid answer within that time, and no head on the device.
            ContractMismatch: A server was started anew with another head. It got no payload.
        """
        self._gate.check()
        return self._predict([frame])[0]

    def predict_batch(self, frames: Iterable[FrameLike]) -> list[Prediction]:
        """Answer for many pictures, ``head.max_batch_size`` at most in a request, each with its own deadline.

        Args:
            frames: Each as :meth:`predict` takes it.

        Returns:
            One prediction per picture, in order. Their timings are those of the whole request.

        Raises:
            DCPError: As :meth:`predict`, for the first request that fails; none is sent after it.
        """
        self._gate.check()
        remaining = iter(frames)
        predictions: list[Prediction] = []
        while batch := list(islice(remaining, self.manifest.contract.head.max_batch_size)):
            predictions += self._predict(batch)
        return predictions

    def stream(self, source: SourceLike | None = None) -> Iterator[Prediction]:
        """Answer for one frame after the other, in order.

        A camera gives its newest frame each time, and drops those that came while the client was at work.
        Files give every frame.

        Args:
            source: Camera number or URL, video file, folder of pictures, iterable of arrays or frames, or a
                :class:`FrameSource`. None takes the client's camera. What is opened here is closed when
                the generator ends; a source of yours stays open.

        Raises:
            DCPError: As :meth:`predict`, for the first frame that fails.
        """
        self._gate.check()
        with ExitStack() as opened:
            frames = open_source(self._require_camera() if source is None else source)
            if frames is not source and frames is not self._camera:
                opened.enter_context(frames)
            for frame in frames:
                self._gate.check()
                yield self._predict([frame])[0]

    def close(self) -> None:
        """Let calls of other threads end by their deadlines, then close connections and the camera opened here.

        Later calls raise :class:`ConfigError`. May be called twice.
        """
        self._gate.close(self.timeouts.predict_s)
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

    def _predict(self, pictures: Sequence[FrameLike | None]) -> list[Prediction]:
        """Take the frame's journey, one stage per line, by one deadline for all of them."""
        contract = self.manifest.contract
        with self._gate.entered():
            deadline = Deadline(self.timeouts.predict_s)
            watch = _Stopwatch(deadline)
            frames = [self._require_camera().read(deadline.left_s()) if p is None else as_frame(p) for p in pictures]
            capture_ms = watch.lap_ms("capture")
            pixels = np.stack([preprocess(frame.image_rgb, contract.preprocessing) for frame in frames])
            preprocess_ms = watch.lap_ms("preprocessing")
            raw = self._obfuscator.run(pixels, deadline)
            obfuscate_ms = watch.lap_ms("the device graph")
            payload = check_payload(contract, raw)
            guard_ms = watch.lap_ms("the guard")
            answer = self._ask(payload, deadline)
            network_ms = watch.lap_ms()
        probabilities = decode_answer(contract, answer.values, len(frames))
        timings = Timings(
            capture_ms=capture_ms,
            preprocess_ms=preprocess_ms,
            obfuscate_ms=obfuscate_ms,
            guard_ms=guard_ms,
            network_ms=network_ms,
            decode_ms=watch.lap_ms(),
            total_ms=watch.total_ms(),
        )
        return make_predictions(
            contract,
            frames,
            payload,
            probabilities,
            timings,
            provider=self.provider,
            server=answer.address,
            sends=answer.sends,
        )

    def _ask(self, payload: Payload, deadline: Deadline) -> Answer:
        """Let a server answer, or the head on the device where that is wanted and no server does."""
        sends = Sends()
        if self._local is None:
            return self._servers.infer(payload, deadline, sends)
        try:
            answer = self._servers.infer(payload, Deadline((1 - _LOCAL_SHARE) * deadline.left_s()), sends)
            decode_answer(self.manifest.contract, answer.values, len(payload[0]))  # nonsense is no answer
        except (ServerError, ContractMismatch):
            return Answer(self._local.answer(payload, deadline), DEVICE, sends.count)
        return answer

    def _require_camera(self) -> Camera:
        if self._camera is None:
            raise ConfigError("predict() without a picture needs a camera: PrivateClient(…, camera=0).")
        return self._camera


class _Stopwatch:
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._start = self._last = time.perf_counter()

    def lap_ms(self, stage: str | None = None) -> float:
        """Milliseconds since the last lap; a named stage must have left some time."""
        last, self._last = self._last, time.perf_counter()
        if stage is not None:
            self._deadline.check(stage)
        return (self._last - last) * 1000

    def total_ms(self) -> float:
        return (self._last - self._start) * 1000
