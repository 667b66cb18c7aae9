"""A camera whose newest frame is always the one you get."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np

from ._at_exit import close_at_exit
from .config import check_kinds
from .errors import ConfigError, FrameError
from .events import log
from .frames import Frame, FrameSource

__all__ = ["Camera"]

_REOPEN_S = 1.0
"""Between attempts to open a camera that went away."""
_LONGEST_S = 86_400
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-f:.]+\])(:\d+)?", re.IGNORECASE)


class Camera(FrameSource):
    """A webcam or network stream, read by a thread that keeps only the newest frame. Thread-safe.

    OpenCV queues frames, so that reading at one's own pace shows the past. Here frames that nobody asked for
    in time are dropped. A camera that goes away is opened again, once a second, until it is back.

    Args:
        device: Number of the camera (0 is the first), its file, such as ``/dev/v4l/by-id/…``, or a URL such as
            ``rtsp://…`` that OpenCV opens.
        timeout_s: Longest wait, in seconds, for opening and for each frame. An older frame is never given.

    Raises:
        ConfigError: ``timeout_s`` is not positive or above a day, or no camera can have this number or name.
        FrameError: The camera does not open at first, or gives no frame in time.
    """

    live = True

    def __init__(self, device: int | str, *, timeout_s: float = 5.0) -> None:
        check_kinds(device=(device, int | str), timeout_s=(timeout_s, int | float))
        if not 0 < timeout_s <= _LONGEST_S:
            raise ConfigError(f"timeout_s: expected a positive number of at most {_LONGEST_S} s, got {timeout_s}.")
        if isinstance(device, int) and not 0 <= device < 2**31:
            raise ConfigError(f"device: expected the number of a camera, 0 for the first, got {device}.")
        if isinstance(device, str) and device != device.encode(errors="replace").decode():  # it would end OpenCV
            raise ConfigError("device: expected a name in UTF-8, got another.")
        self.name = f"camera {_shown(device)}"
        self._device = device
        self._timeout_s = timeout_s
        # Entered as itself, in C: Ctrl-C may fall into the Python of a condition's, and leave it held for ever.
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._newest: Frame | None = None
        self._gone: str | None = None
        """Why there are no frames now; it may come back."""
        self._closing = threading.Event()
        self._stale = False
        # A daemon that opens the driver itself: one that never returns can then hang neither us nor the exit.
        self._thread = threading.Thread(target=self._grab, name=f"dcp {self.name}", daemon=True)
        self._thread.start()
        close_at_exit(self)
        try:
            with self._lock:
                self._wait_for_frame()
        except FrameError:
            self.close()
            raise

    def read(self, timeout_s: float | None = None) -> Frame:
        """Give the newest frame that was not given before; wait for it if need be.

        Args:
            timeout_s: Longest wait of this call in seconds, where that is less than the camera's own.

        Raises:
            FrameError: None came in time, the camera is away, or it is closed.
        """
        try:
            with self._lock:
                if self._newest is not None and self._newest.age_ms > self._timeout_s * 1000:
                    self._newest = None
                frame = self._wait_for_frame(timeout_s)
                self._newest = None
        except FrameError:
            self._notice(stale=not self._closing.is_set())
            raise
        self._notice(stale=False)
        return frame

    def __iter__(self) -> Iterator[Frame]:
        while True:
            yield self.read()

    def close(self) -> None:
        """Stop the thread and free the camera. Waits for the driver's read, but at most ``timeout_s``."""
        self._closing.set()
        with self._lock:
            self._gone = "it is closed"
            self._newest = None
            self._news.notify_all()
        self._thread.join(self._timeout_s)

    def _notice(self, *, stale: bool) -> None:
        """Log when frames stop to come in time, and when they come again."""
        before, self._stale = self._stale, stale
        if stale and not before:
            log("camera_stale", "%(camera)s gives no frame in time", camera=self.name)
        if before and not stale and not self._closing.is_set():
            log("camera_back", "%(camera)s gives frames again", camera=self.name)

    def _wait_for_frame(self, timeout_s: float | None = None) -> Frame:
        wait_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        self._news.wait_for(lambda: self._newest is not None or self._gone is not None, wait_s)
        if self._newest is None:
            why = self._gone or f"no frame came within {wait_s:.3g} s"
            raise FrameError(f"expected a frame from {self.name}, but {why}. Try `dcp doctor`.")
        return self._newest

    def _grab(self) -> None:
        index = 0
        while not self._closing.is_set():
            index = self._record(index)
            self._closing.wait(_REOPEN_S)

    def _record(self, index: int) -> int:
        """Give frames until the camera goes away; return the number of the next one."""
        capture = cv2.VideoCapture()
        try:
            _open(capture, self._device, self._timeout_s)
            if not capture.isOpened():
                self._lose("it does not open: wrong number or address, in use elsewhere, or no permission")
            while not self._closing.is_set() and capture.isOpened():
                given, image_bgr = capture.read()
                if not given:
                    self._lose("it stopped giving frames")
                    break
                captured_at = time.monotonic()
                image_rgb = np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
                self._publish(Frame(image_rgb, captured_at, self.name, index))
                index += 1
        except Exception as error:  # noqa: BLE001 - OpenCV's own, or no memory for a frame: this thread must go on
            self._lose(f"OpenCV failed ({error.err if isinstance(error, cv2.error) else type(error).__name__})")
        finally:
            capture.release()
        return index

    def _publish(self, frame: Frame) -> None:
        with self._lock:
            if not self._closing.is_set():
                self._newest, self._gone = frame, None
                self._news.notify_all()

    def _lose(self, why: str) -> None:
        with self._lock:
            if not self._closing.is_set():
                self._gone = why
                self._news.notify_all()


def _shown(device: int | str) -> int | str:
    """Of a URL, scheme, host and port: user and password may stand before them, in the path, or in the query.

    Where it does not tell which is which, as with a slash in the password, no more than the scheme; and nothing of
    what is neither a URL nor a path.
    """
    if isinstance(device, int) or device.startswith("/"):
        return device
    if (parts := _URL.fullmatch(device)) is None:
        return "…"
    host = parts["authority"].rpartition("@")[2]
    is_clear = "@" not in parts["rest"] and _HOST_AND_PORT.fullmatch(host)
    return f"{parts['scheme']}://{host if is_clear else '…'}"


def _open(capture: cv2.VideoCapture, device: int | str, timeout_s: float) -> None:
    if isinstance(device, int):
        capture.open(device)
    elif "://" not in device:
        capture.open(device, cv2.CAP_V4L2)
    else:
        timeout_ms = int(timeout_s * 1000)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        capture.open(device, cv2.CAP_FFMPEG, limits)
