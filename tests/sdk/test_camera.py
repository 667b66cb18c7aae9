"""Cameras that are real to OpenCV: MJPEG over HTTP and JPEG over RTSP, as IP cameras send them."""

from __future__ import annotations

import logging
import socket
import threading
import time

import cv2
import numpy as np
import pytest

from dcp_sdk import Camera, ConfigError, FrameError, PrivateClient
from dcp_sdk.camera import _shown
from dcp_sdk.serving import TritonServer
from tests.e2e.bodies import payloads_in
from tests.e2e.tap import port_of, tap
from tests.sdk.cameras import HEAD, brightening, brightening_rtsp, ending, ending_rtsp, part, silent, stalling, url
from tests.sdk.conftest import Behaviour, Listen
from tests.tiny import Tiny


@pytest.mark.parametrize(("scheme", "behaviour"), [("http", brightening), ("rtsp", brightening_rtsp)])
def test_a_frame_is_new_and_never_given_twice(scheme: str, behaviour: Behaviour, listen: Listen) -> None:
    with Camera(url(listen(behaviour), scheme), timeout_s=20) as camera:
        first = camera.read()
        time.sleep(0.5)
        after_a_pause = camera.read()
        following = camera.read()
    assert after_a_pause.index - first.index > 5, "frames of the pause should have been dropped"
    assert after_a_pause.age_ms - following.age_ms > 0
    assert first.index < after_a_pause.index < following.index
    assert first.image_rgb.mean() < after_a_pause.image_rgb.mean()


def test_iterating_goes_on(listen: Listen) -> None:
    with Camera(url(listen(brightening)), timeout_s=20) as camera:
        indices = [frame.index for frame, _ in zip(camera, range(5), strict=False)]
    assert indices == sorted(set(indices))


@pytest.mark.parametrize("behaviour", [stalling, ending])
def test_a_camera_that_stops_is_an_error_in_time(behaviour: Behaviour, listen: Listen) -> None:
    with Camera(url(listen(behaviour)), timeout_s=3) as camera:
        start = time.monotonic()
        with pytest.raises(FrameError, match="expected a frame from camera http"):
            for _ in camera:
                pass
        assert time.monotonic() - start < 30


@pytest.mark.triton
@pytest.mark.parametrize(
    ("scheme", "first", "then"), [("http", ending, brightening), ("rtsp", ending_rtsp, brightening_rtsp)]
)
def test_a_camera_that_comes_back_needs_no_new_client(
    scheme: str, first: Behaviour, then: Behaviour, listen: Listen, tiny: Tiny, tiny_server: TritonServer
) -> None:
    """And nothing but payloads leaves meanwhile."""
    callers: list[socket.socket] = []

    def unplugged_once(connection: socket.socket, stop: threading.Event) -> None:
        callers.append(connection)
        (first if len(callers) == 1 else then)(connection, stop)

    address = url(listen(unplugged_once), scheme)
    with (
        tap(port_of(tiny_server, "grpc")) as wire,
        PrivateClient(tiny.bundle, f"grpc://127.0.0.1:{wire.port}", device="cpu", camera=address) as client,
    ):
        seen = [client.predict().label]
        with pytest.raises(FrameError, match="stopped giving frames"):
            while True:
                seen.append(client.predict().label)
        with pytest.raises(FrameError, match="stopped giving frames"):
            client.predict()  # at once, not after the deadline
        end = time.monotonic() + 30
        while len(callers) == 1 or not _answers(client):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert client.predict().label in seen
    sent = [payload for stream in wire.streams for payload in payloads_in(bytes(stream), tiny.manifest.contract)]
    assert len(sent) > len(seen)


def _answers(client: PrivateClient) -> bool:
    try:
        return bool(client.predict().label)
    except FrameError:
        return False


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_camera_that_says_nothing_is_an_error_in_time(scheme: str, listen: Listen) -> None:
    start = time.monotonic()
    with pytest.raises(FrameError, match="expected a frame"):
        Camera(url(listen(silent), scheme), timeout_s=1)
    assert time.monotonic() - start < 20


def test_its_credentials_stand_nowhere_and_the_log_tells_when_it_is_stale(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    resume = threading.Event()

    def pausing(connection: socket.socket, stop: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(HEAD)
        for _ in range(20):
            connection.sendall(part(100))
        resume.wait(20)
        while not stop.wait(0.02):
            connection.sendall(part(100))

    caplog.set_level(logging.DEBUG)
    address = f"http://kiosk:hunter2@127.0.0.1:{listen(pausing)}/stream.mjpg"
    with Camera(f"{address}?token=hunter2", timeout_s=20) as camera:
        frame = camera.read()
        for _ in range(2):
            with pytest.raises(FrameError) as caught:
                while True:
                    camera.read(0.5)
        resume.set()
        camera.read()
    assert [record.__dict__["dcp_event"] for record in caplog.records] == ["camera_stale", "camera_back"]
    for said in (frame.source, str(caught.value), caplog.text, str([record.__dict__ for record in caplog.records])):
        assert "127.0.0.1" in said
        assert "hunter2" not in said
        assert "kiosk" not in said


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:pa?ss@10.0.0.2:554/live", "rtsp://…"),
        ("rtsp://admin:pa@ss@10.0.0.2/live?user=admin", "rtsp://10.0.0.2"),
        ("rtsp://10.0.0.2:554/user=admin&password=s3cret&channel=1", "rtsp://10.0.0.2:554"),
        ("http://10.0.0.2?key=x", "http://10.0.0.2"),
        ("http://10.0.0.2/stream?key=x@y", "http://…"),
        ("rtsp://admin:1234/5@10.0.0.2/live", "rtsp://…"),
        ("http://10.0.0.2?key=x@y", "http://…"),
        ("rtsp://10.0.0.2:554?user=admin&password=s3@cret", "rtsp://…"),
        ("rtsp://10.0.0.2#admin:s3cret", "rtsp://10.0.0.2"),
        ("rtsp://10.0.0.2:554;password=s3cret", "rtsp://…"),
        ("rtsp://admin:pa?ss@10.0.0.2:s3cret/live", "rtsp://…"),
        ("rtsp://admin:s3cret@[fe80::1]:554/live", "rtsp://[fe80::1]:554"),
        ("10.0.0.2:554/user=admin&password=s3cret", "…"),
        ("rtsp:/admin:s3cret@10.0.0.2/live", "…"),
        ("/dev/v4l/by-id/usb-cam", "/dev/v4l/by-id/usb-cam"),
    ],
)
def test_of_an_address_only_what_everybody_may_know_is_shown(address: str, shown: str) -> None:
    assert _shown(address) == shown


@pytest.mark.parametrize("where", ["open", "read"])
def test_a_failure_of_any_kind_is_a_camera_that_was_lost(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opened again: its thread does not die of memory that ran out once."""
    opened: list[int] = []

    class Driver:
        def open(self, device: int) -> None:
            opened.append(device)
            if (where, len(opened)) == ("open", 2):
                raise MemoryError

        def isOpened(self) -> bool:
            return True

        def read(self) -> tuple[bool, np.ndarray]:
            time.sleep(0.01)
            if len(opened) == 1 and camera_has_given.is_set():
                if where == "read":
                    raise MemoryError
                return False, np.empty(0)
            return True, np.zeros((4, 4, 3), np.uint8)

        def release(self) -> None:
            pass

    camera_has_given = threading.Event()
    monkeypatch.setattr(cv2, "VideoCapture", Driver)
    with Camera(0, timeout_s=20) as camera:
        before = camera.read().index
        camera_has_given.set()
        lost, after, end = set[str](), before, time.monotonic() + 30
        while len(opened) < (3 if where == "open" else 2) or after == before:
            assert time.monotonic() < end, lost
            try:
                frame = camera.read(0.5)
            except FrameError as error:
                lost.add(str(error))
                time.sleep(0.01)
            else:
                after = frame.index if lost else before
        assert any("MemoryError" in why for why in lost)
        assert after > before, "numbers go on"


def test_close_ends_the_thread_and_reading(listen: Listen) -> None:
    camera = Camera(url(listen(brightening)), timeout_s=20)
    thread = camera._thread
    camera.close()
    camera.close()
    assert not thread.is_alive()
    with pytest.raises(FrameError, match="closed"):
        camera.read()


@pytest.mark.parametrize("device", [-1, 2**31, 2**70, None, 1.0, True])
def test_no_camera_has_this_number(device: object) -> None:
    with pytest.raises(ConfigError, match="device"):
        Camera(device)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout_s", [0, -1, 86_401, "5", float("inf"), float("nan")])
def test_timeout_is_positive_and_at_most_a_day(timeout_s: object) -> None:
    with pytest.raises(ConfigError, match="timeout_s"):
        Camera(0, timeout_s=timeout_s)  # type: ignore[arg-type]
