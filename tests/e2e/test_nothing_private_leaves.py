"""On every path, good or bad, a tap on the wire finds neither the picture nor a pruned channel; errors come in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tritonclient.http

from dcp_sdk import (
    BundleError,
    ContractMismatch,
    DCPError,
    FrameError,
    PrivateClient,
    ServerError,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    Timeouts,
)
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import ADMIN_KEY_HEADER, TritonServer
from tests.e2e.secrets import Secrets, pieces, secrets_of
from tests.e2e.tap import Tap, port_of, tap
from tests.tiny import ADMIN_KEY, Tiny

pytestmark = [pytest.mark.triton, pytest.mark.parametrize("scheme", ["grpc", "http"])]

TIMEOUTS = Timeouts(connect_s=2, predict_s=1)
IN_TIME_S = 6
"""The timeouts above, and what a loaded machine may take to start a thread or to decode a picture."""


@pytest.fixture
def in_time() -> Iterator[None]:
    """Fail a test whose body took longer than the timeouts allow."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < IN_TIME_S


def connect(tiny: Tiny, wire: Tap, scheme: str) -> PrivateClient:
    return PrivateClient(tiny.bundle, f"{scheme}://127.0.0.1:{wire.port}", device="cpu", timeouts=TIMEOUTS)


def test_the_tap_hears_the_payload_and_would_hear_a_leak(
    scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    assert len(secrets.picture) > 200
    assert len(secrets.pruned) > 5
    with connect(tiny, wire, scheme) as client:
        client.predict(noise)
    assert secrets.kept in wire.sent
    assert secrets.found_in(wire.sent) == []
    for leak, kind in ((noise[3, 2:20].tobytes(), "picture"), (secrets.pruned[2], "pruned channels")):
        with socket.create_connection(("127.0.0.1", wire.port)) as careless:
            careless.sendall(leak)
            assert wire.wait_for(leak)
        assert kind in secrets.found_in(wire.sent)


BAD_FRAMES: dict[str, Callable[[Image], object]] = {
    "text": lambda picture: b"not a picture, " + picture.tobytes(),
    "a picture file cut short": lambda picture: cv2.imencode(".png", picture)[1].tobytes()[:1500],
    "zero-size": lambda picture: picture[:0],
    "grey": lambda picture: picture[..., 0],
    "RGBA": lambda picture: np.concatenate([picture, picture[..., :1]], axis=-1),
    "float": lambda picture: picture.astype(np.float32) / 255,
    "channels first": lambda picture: picture.transpose(2, 0, 1),
    "no such file": lambda picture: Path("no/such/file.jpg"),
}


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("spoil", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_what_is_no_picture_is_never_sent(
    spoil: Callable[[Image], object], scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    frame = spoil(noise)
    with connect(tiny, wire, scheme) as client:
        before = len(wire.sent)
        with pytest.raises(FrameError, match="expected"):
            client.predict(frame)  # type: ignore[arg-type]
        with pytest.raises(FrameError, match="expected"):
            client.predict_batch([noise, frame])  # type: ignore[list-item]
        raw = frame.tobytes() if isinstance(frame, np.ndarray) else frame if isinstance(frame, bytes) else b""
        assert not any(piece in wire.sent for piece in pieces(raw))
        assert len(wire.sent) - before < 100, "no request was made; HTTP/2 may have acknowledged something"
        assert client.predict(noise).label, "the client is as good as before"
    assert secrets.found_in(wire.sent) == []


def remove_manifest(pair: Tiny) -> None:
    (pair.bundle / "manifest.json").unlink()


def edit_device_graph(pair: Tiny) -> None:
    path = pair.bundle / DEVICE_GRAPH_FILE
    path.write_bytes(path.read_bytes().replace(b"scale", b"zcale"))


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("damage", [remove_manifest, edit_device_graph], ids=["no manifest", "edited device.onnx"])
def test_a_damaged_bundle_does_not_even_connect(
    damage: Callable[[Tiny], None], scheme: str, wire: Tap, broken: Tiny
) -> None:
    damage(broken)
    with pytest.raises(BundleError, match="expected"):
        connect(broken, wire, scheme)
    assert not wire.sent


@pytest.mark.usefixtures("in_time")
def test_the_head_of_another_bundle_gets_nothing(scheme: str, wire: Tap, other: Tiny) -> None:
    with pytest.raises(ContractMismatch, match="expected"):
        connect(other, wire, scheme)
    assert len(wire.sent) < 2000, "questions about the model only"


@pytest.mark.usefixtures("in_time")
def test_a_model_that_is_not_loaded(
    scheme: str, own_server: TritonServer, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    with tap(port_of(own_server, scheme)) as wire:
        with connect(tiny, wire, scheme) as client:
            control = tritonclient.http.InferenceServerClient(own_server.http_address.removeprefix("http://"))
            control.unload_model("task_head", headers={ADMIN_KEY_HEADER: ADMIN_KEY})
            deadline = time.monotonic() + 5
            while control.is_model_ready("task_head") and time.monotonic() < deadline:
                time.sleep(0.01)
            control.close()
            before = client.stats().sends
            for _ in range(2):
                with pytest.raises((ServerUnavailable, ServerRejected), match="expected"):
                    client.predict(noise)
            assert client.stats().sends - before == 1, "it asks before it sends again"
        with pytest.raises(ServerUnavailable, match="task_head"):
            connect(tiny, wire, scheme)
        assert secrets.found_in(wire.sent) == []


@pytest.mark.usefixtures("in_time")
def test_a_server_that_was_stopped(
    scheme: str, own_server: TritonServer, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    with tap(port_of(own_server, scheme)) as wire:
        with connect(tiny, wire, scheme) as client:
            client.predict(noise)
            own_server.kill()
            with pytest.raises(ServerUnavailable, match="expected"):
                client.predict(noise)
        with pytest.raises(ServerUnavailable, match="expected"):
            connect(tiny, wire, scheme)
        assert secrets.found_in(wire.sent) == []


@pytest.mark.usefixtures("in_time")
def test_the_wrong_port(scheme: str, tiny_server: TritonServer, tiny: Tiny) -> None:
    wrong = "http" if scheme == "grpc" else "grpc"
    with tap(port_of(tiny_server, wrong)) as wire:
        with pytest.raises(ServerError, match="expected"):
            connect(tiny, wire, scheme)
        assert len(wire.sent) < 2000


@pytest.mark.usefixtures("in_time")
def test_a_server_killed_during_a_call(
    scheme: str, own_server: TritonServer, tiny: Tiny, noise: Image, secrets: Secrets
) -> None:
    with tap(port_of(own_server, scheme)) as wire:
        with connect(tiny, wire, scheme) as client, ThreadPoolExecutor(1) as pool:
            wire.hold.set()
            call = pool.submit(client.predict, noise)
            assert wire.wait_for(secrets.kept)
            own_server.kill()
            assert isinstance(call.exception(IN_TIME_S), ServerUnavailable | ServerTimeout)
        assert wire.sent.count(secrets.kept) == 1, "sent once, never again"
        assert secrets.found_in(wire.sent) == []


@pytest.mark.usefixtures("in_time")
def test_a_network_that_goes_silent(scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets) -> None:
    with connect(tiny, wire, scheme) as client:
        wire.hold.set()
        with pytest.raises(ServerTimeout, match="expected"):
            client.predict(noise)
    assert wire.sent.count(secrets.kept) == 1, "sent once, never again"
    assert secrets.found_in(wire.sent) == []


def test_many_threads_each_get_their_own_answer(scheme: str, wire: Tap, tiny: Tiny, secrets: Secrets) -> None:
    random = np.random.default_rng(1)
    pictures = [random.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(24)]
    with connect(tiny, wire, scheme) as client, ThreadPoolExecutor(8) as pool:
        expected = [client.predict(picture).probabilities for picture in pictures]
        assert [p.probabilities for p in pool.map(client.predict, pictures)] == expected
    for picture in pictures:
        assert secrets_of(tiny.bundle, tiny.manifest.contract, picture).found_in(wire.sent) == []


def test_closing_the_client_ends_a_call(scheme: str, wire: Tap, tiny: Tiny, noise: Image, secrets: Secrets) -> None:
    client = connect(tiny, wire, scheme)
    wire.hold.set()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.predict(noise)
        except DCPError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert wire.wait_for(secrets.kept)
    client.close()
    thread.join(IN_TIME_S)
    assert len(errors) == 1
