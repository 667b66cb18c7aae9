"""Where drawings go: a window at the device, or a video file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2

from ..errors import ConfigError
from ..payload_picture import HEIGHT_PX, WIDTH_PX
from ..preprocess import Image
from ..sources import for_opencv

__all__ = ["VideoFile", "Window"]

_FRAMES_PER_S = 10
_PROBE = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
_PROBE_S = 60.0
_ESCAPE = 27


class Window:
    """A window that closes with Escape, ``q`` or its button.

    Args:
        title: Stands above it.

    Raises:
        ConfigError: There is no display, it does not answer, or this OpenCV has no windows.
    """

    def __init__(self, title: str) -> None:
        # Without a display OpenCV does not raise: Qt ends the whole process. So another one tries first.
        command = [sys.executable, "-c", _PROBE]
        try:
            opened = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=False).returncode == 0
            got = "a failure to open one"
        except subprocess.TimeoutExpired:  # a display that is forwarded to nowhere accepts, and says nothing
            opened, got = False, f"none within {_PROBE_S:g} s"
        if not opened:
            raise ConfigError(
                f"--window: expected a display and an OpenCV with windows, got {got}. Run it in a "
                "desktop session (DISPLAY is set there), or write a video with --save out.mp4; if there is a display, "
                "`dcp doctor` tells whether opencv-python-headless took the place of opencv-python."
            )
        cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE | cv2.WINDOW_GUI_NORMAL)  # without OpenCV's toolbar
        self._title = title
        self.closed = False
        """Whether somebody closed it."""

    def show(self, drawing_bgr: Image) -> None:
        """Show a drawing, uint8 ``(H, W, 3)``, BGR, and look at the keyboard."""
        cv2.imshow(self._title, drawing_bgr)
        key = cv2.waitKey(1) & 0xFF
        visible = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE)
        self.closed = self.closed or key in (_ESCAPE, ord("q")) or visible < 1

    def close(self) -> None:
        """Take it from the screen."""
        cv2.destroyAllWindows()


class VideoFile:
    """A video of drawings, ten a second.

    Args:
        path: File to write; OpenCV chooses the container by its name, such as ``out.mp4``.

    Raises:
        ConfigError: It cannot be written.
    """

    closed = False
    """It never ends by itself."""

    def __init__(self, path: Path) -> None:
        codec = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
        file: Any = for_opencv(path)  # OpenCV's types know text alone
        self._writer = cv2.VideoWriter(file, codec, _FRAMES_PER_S, (WIDTH_PX, HEIGHT_PX))
        if not self._writer.isOpened():
            raise ConfigError(f"--save: expected a video file that can be written, such as out.mp4, got {path}.")
        self._path, self._written = path, 0

    def show(self, drawing_bgr: Image) -> None:
        """Add a drawing, uint8 ``(HEIGHT_PX, WIDTH_PX, 3)``, BGR."""
        self._writer.write(drawing_bgr)
        self._written += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            ConfigError: It does not hold what was written: OpenCV says nothing of a disk that is full.
        """
        self._writer.release()
        file: Any = for_opencv(self._path)
        kept = int(cv2.VideoCapture(file).get(cv2.CAP_PROP_FRAME_COUNT))
        if kept < self._written:
            raise ConfigError(
                f"--save: expected {self._written} frames in {self._path}, got {max(kept, 0)}. "
                "Look whether the disk is full."
            )
