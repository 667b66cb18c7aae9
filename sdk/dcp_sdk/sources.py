"""Many frames: folders, videos, arrays; and the choice of a source by what the caller names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from .camera import Camera
from .errors import FrameError
from .frames import Frame, FrameSource, load_image
from .preprocess import Image, check_frame

__all__ = ["Arrays", "Folder", "SourceLike", "Video", "open_source"]

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""File names that :class:`Folder` takes for pictures."""

_MP4_PARTS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"moof", b"mfra", b"sidx"})

SourceLike = int | str | PathLike[str] | Iterable[Image | Frame] | FrameSource
"""What ``stream`` takes: camera number or URL, video, folder of pictures, arrays or frames, or a source."""


class Arrays(FrameSource):
    """Any iterable of RGB arrays (uint8 ``(H, W, 3)``) or frames; read lazily, once.

    Each picture is copied: cameras' own libraries like to give one buffer again and again, and a stream asks for the
    next picture while the last one still waits.
    """

    def __init__(self, arrays: Iterable[Image | Frame]) -> None:
        self._arrays = arrays

    def __iter__(self) -> Iterator[Frame]:
        for index, item in enumerate(self._arrays):
            if isinstance(item, Frame):
                yield replace(item, image_rgb=check_frame(item.image_rgb).copy())
            else:
                yield Frame(check_frame(item).copy(), time.monotonic(), "array", index)


class Folder(FrameSource):
    """All pictures of a folder, sorted by name; folders inside it are not entered.

    Args:
        path: The folder.
        load: Reads and decodes a picture's file.

    Raises:
        FrameError: It is no folder, or holds no picture.
    """

    def __init__(self, path: str | PathLike[str], *, load: Callable[[Path], Image] = load_image) -> None:
        folder = Path(path)
        self._load = load
        if not folder.is_dir():
            raise FrameError(f"expected a folder of pictures at {folder}, got nothing of the kind.")
        self.paths = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES)
        """Paths of the pictures, in the order in which they are read."""
        if not self.paths:
            raise FrameError(f"expected pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) in {folder}, got none.")

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            yield Frame(self._load(path), time.monotonic(), str(path), index)


class Video(FrameSource):
    """All frames of a video file, in order, as fast as they are asked for; each iteration starts anew.

    Args:
        path: The file, in any format that OpenCV reads as a video; of an animated GIF it may leave frames out.

    Raises:
        FrameError: The file is missing, or is not a video; after its last frame, if an AVI or MP4 file is cut short.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        if not os.path.isfile(self.path):  # noqa: PTH113 - Path's raises where it may not look
            raise FrameError(f"expected a video file at {self.path}, got none.")
        if self.path.suffix.lower() == ".gif":
            raise FrameError(
                f"expected a video, got the GIF {self.path}, of which OpenCV may leave frames out without a word. "
                "Use predict for its first frame, or convert it to MP4."
            )

    def __iter__(self) -> Iterator[Frame]:
        capture = cv2.VideoCapture(str(self.path))
        try:
            stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            index = 0
            while True:
                given, image_bgr = capture.read()
                if not given:
                    break
                image_rgb = np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(image_rgb, time.monotonic(), str(self.path), index)
                index += 1
        finally:
            capture.release()
        if index == 0:
            raise FrameError(f"expected a video at {self.path}, got a file without a frame that OpenCV can read.")
        # The number alone proves nothing: whole files state frames that an edit list or a codec leaves out.
        if index < stated and _is_cut_short(self.path):
            raise FrameError(
                f"expected {stated:.0f} frames in {self.path}, got {index}: the file ends too early. "
                "Copy or record it again."
            )


def open_source(source: SourceLike, *, load: Callable[[Path], Image] = load_image) -> FrameSource:
    """Choose the source that ``source`` names. A number is a camera, and so is a device such as ``/dev/video0`` or
    ``/dev/v4l/by-id/…``, whose name stays when a camera is plugged in anew; a text with ``://`` is a network camera.

    Args:
        source: See :data:`SourceLike`. A source is given back as it is.
        load: Reads and decodes a picture's file of a folder.

    Raises:
        FrameError: It cannot be opened, or is a single picture.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, int) or _names_camera(source):
        return Camera(source if isinstance(source, int) else str(source))
    if isinstance(source, str | PathLike):
        path = Path(source)
        if os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
            return Folder(path, load=load)
        if path.suffix.lower() in PICTURE_SUFFIXES:
            raise FrameError(
                f"expected a camera, video or folder, got the picture {path}. Use predict for one picture."
            )
        return Video(path)
    if isinstance(source, np.ndarray) and source.ndim < 4:
        raise FrameError(f"expected many pictures, got an array of shape {source.shape}. Use predict for one picture.")
    if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | memoryview):
        return Arrays(source)
    raise FrameError(f"expected a camera, video, folder or pictures, got {type(source).__name__}.")


def _is_cut_short(video: Path) -> bool:
    """Say whether an AVI or MP4 file ends before the last of its parts does."""
    at = 0
    with suppress(OSError), video.open("rb") as file:  # one that went away meanwhile is
        size = file.seek(0, os.SEEK_END)
        while at < size:
            file.seek(at)
            head = file.read(16)
            if head.startswith(b"RIFF"):
                length = 8 + int.from_bytes(head[4:8], "little")
            elif head[4:8] in _MP4_PARTS:
                length = int.from_bytes(head[:4]) or size - at  # 0: to the end of the file
                length = int.from_bytes(head[8:]) if length == 1 else length
            else:
                return False
            at += max(length, 8)
        return at > size
    return True


def _names_camera(source: object) -> bool:
    if isinstance(source, str) and "://" in source:
        return True
    if not isinstance(source, str | PathLike) or not Path(source).is_relative_to("/dev"):
        return False
    return not os.path.isfile(source) and not os.path.isdir(source)  # noqa: PTH112, PTH113 - /dev/shm holds files, too
