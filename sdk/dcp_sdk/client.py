"""The client: a picture goes in, a prediction comes out, and the server never sees the picture."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from os import PathLike
from types import TracebackType
from typing import Self

import numpy as np

from .bundle import Bundle
from .camera import Camera
from .config import Device, ServerAddress, Timeouts
from .contract import Manifest
from .errors import ConfigError
from .frames import FrameLike, as_frame
from .guard import check_payload
from .obfuscate import Obfuscator
from .predictions import Prediction, Timings, decode_answer, make_predictions
from .preprocess import preprocess
from .privacy_report import PrivacyReport
from .runtime import Provider
from .signing_keys import KeySource
from .sources import SourceLike, open_source
from .transport import Transport, open_transport

__all__ = ["PrivateClient"]

_DEFAULT_TIMEOUTS = Timeouts()


class PrivateClient:
    """Uses a task head in the cloud without showing it the picture. Thread-safe.

    Making one checks all that can be checked before the first picture: who signed the bundle, its hashes, the
    graph, and that the served head was exported together with this bundle. After a failure nothing else is sent: there
    are no retries and no fallbacks.

    >>> with PrivateClient("bundles/gender", "grpc://localhost:8001") as client:  # doctest: +SKIP
    ...     print(client.predict("face.jpg").label)

    Args:
        bundle: Folder of the bundle, or its archive (``.dcp``).
        server: ``grpc://HOST:PORT``, ``http://HOST:PORT``, ``HOST:PORT`` (gRPC) or ``memory://MODEL_REPOSITORY``.
        device: Where the device graph runs: ``cpu``; ``cuda``, all of it on the GPU or an error; ``auto``,
            CUDA if it works.
        threads: CPU threads of the device graph; None leaves the number to ONNX Runtime.
        timeouts: How long to wait for the server.
        headers: Sent with each request, for example the key of a Triton with restricted protocols.
        trusted_keys: Ed25519 public keys (paths of PEM files, or PEM as bytes), one of which must have signed the
            bundle as it is; None takes unsigned bundles too.
        transport: Used instead of ``server``; the client closes it.
        camera: Number, URL or :class:`Camera` for ``predict()`` and ``stream()`` without arguments. A
            :class:`Camera` of yours stays open; one that is made here is closed with the client.

    Raises:
        ConfigError: An option makes no sense.
        BundleError: The bundle is missing or damaged, or its privacy report is about another one.
        SignatureError: No trusted key signed exactly this bundle, or its signature is malformed.
        RuntimeUnavailable: ``device="cuda"``, and CUDA cannot run the whole graph.
        ContractMismatch: The served head does not belong to this bundle.
        ServerError: The server is down (``ServerUnavailable``), slow (``ServerTimeout``) or refuses
            (``ServerRejected``).
        FrameError: The camera does not open.
    """

    privacy_report: PrivacyReport | None
    """What was measured of this very bundle; None if nothing was. Look at ``privacy_report.protected``."""
    manifest: Manifest
    """The bundle's manifest; ``manifest.contract`` says what leaves the device."""

    def __init__(
        self,
        bundle: str | PathLike[str],
        server: str | ServerAddress | None = None,
        *,
        device: Device = "auto",
        threads: int | None = None,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        headers: Mapping[str, str] | None = None,
        trusted_keys: Sequence[KeySource] | None = None,
        transport: Transport | None = None,
        camera: int | str | Camera | None = None,
    ) -> None:
        self._timeouts = timeouts
        self._transport = _choose_transport(server, transport, headers)
        self._closed = False
        with ExitStack() as opened:
            opened.callback(self._transport.close)
            files = Bundle.open(bundle, trusted_keys=trusted_keys)
            self.manifest = Manifest.load(files)
            contract = self.manifest.contract
            self.privacy_report = PrivacyReport.load(files, contract)
            self._obfuscator = Obfuscator(files, contract, device=device, threads=threads)
            self._transport.connect(contract, timeouts.connect_s)
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
        """Address of the task head."""
        return self._transport.address

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
            ServerError: No valid answer within ``timeouts.predict_s`` seconds.
        """
        self._check_open()
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
        self._check_open()
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
        self._check_open()
        with ExitStack() as opened:
            frames = open_source(self._require_camera() if source is None else source)
            if frames is not source and frames is not self._camera:
                opened.enter_context(frames)
            for frame in frames:
                self._check_open()
                yield self._predict([frame])[0]

    def close(self) -> None:
        """Close connections and the camera that the client opened. May be called twice."""
        self._closed = True
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
        """Take the frame's journey, one stage per line."""
        contract = self.manifest.contract
        watch = _Stopwatch()
        frames = [self._require_camera().read() if p is None else as_frame(p) for p in pictures]
        capture_ms = watch.lap_ms()
        pixels = np.stack([preprocess(frame.image_rgb, contract.preprocessing) for frame in frames])
        preprocess_ms = watch.lap_ms()
        raw = self._obfuscator.run(pixels)
        obfuscate_ms = watch.lap_ms()
        payload = check_payload(contract, raw)
        guard_ms = watch.lap_ms()
        answer = self._transport.infer(payload, self._timeouts.predict_s)
        network_ms = watch.lap_ms()
        probabilities = decode_answer(contract, answer, len(frames))
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
            contract, frames, payload, probabilities, timings, provider=self.provider, server=self.server
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("the client is closed. Make a new PrivateClient, or predict inside its `with` block.")

    def _require_camera(self) -> Camera:
        if self._camera is None:
            raise ConfigError("predict() without a picture needs a camera: PrivateClient(…, camera=0).")
        return self._camera


class _Stopwatch:
    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap_ms(self) -> float:
        last, self._last = self._last, time.perf_counter()
        return (self._last - last) * 1000

    def total_ms(self) -> float:
        return (self._last - self._start) * 1000


def _choose_transport(
    server: str | ServerAddress | None, transport: Transport | None, headers: Mapping[str, str] | None
) -> Transport:
    if transport is not None:
        if server is not None or headers is not None:
            raise ConfigError("expected a server or a transport, got both. Give address and headers to the transport.")
        return transport
    if server is None:
        raise ConfigError("expected a server, got none. Give its address, such as grpc://localhost:8001.")
    return open_transport(server if isinstance(server, ServerAddress) else ServerAddress.parse(server), headers=headers)
