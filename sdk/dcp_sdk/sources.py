"""Many frames: folders, videos, arrays; and the choice of a source by what the caller names."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np

from .camera import Camera
from .errors import FrameError
from .frames import Frame, FrameSource, load_image
from .preprocess import Image, check_frame

__all__ = ["Arrays", "Folder", "SourceLike", "Video", "for_opencv", "open_source"]

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""File names that :class:`Folder` takes for pictures."""

_MP4_PARTS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"moof", b"mfra", b"sidx"})

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
"""Of a Matroska or WebM file: the part in front, and the part that holds everything else."""

T = TypeVar("T")


class Reading(Protocol):
    """How a piece of work is done that reads a file, and may hang where its drive does."""

    def __call__(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises; or give up waiting for it, by an error."""
        ...


def at_once(work: Callable[[], T]) -> T:
    """Do it, however long it takes."""
    return work()


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
        reading: How each file is read and decoded.

    Raises:
        FrameError: It is no folder, or holds no picture.
    """

    def __init__(self, path: str | PathLike[str], *, reading: Reading = at_once) -> None:
        folder = Path(path)
        self._reading = reading
        if not folder.is_dir():
            raise FrameError(f"expected a folder of pictures at {folder}, got nothing of the kind.")
        try:
            named = [entry for entry in folder.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES]
        except OSError as error:
            raise FrameError(f"expected a folder that can be read at {folder}, got {type(error).__name__}.") from error
        self.paths = sorted(entry for entry in named if not entry.is_dir())
        """Paths of the pictures, in the order in which they are read."""
        if not self.paths:
            raise FrameError(f"expected pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) in {folder}, got none.")

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            yield Frame(self._reading(partial(load_image, path)), time.monotonic(), str(path), index)


class Video(FrameSource):
    """All frames of a video file, in order, as fast as they are asked for; each iteration starts anew.

    Args:
        path: The file, in any format that OpenCV reads as a video; of an animated GIF it may leave frames out.
        reading: How it is opened, and each frame read and decoded.

    Raises:
        FrameError: The file is missing, or is not a video; after its last frame, if an AVI, MP4, Matroska or WebM file
            is cut short.
    """

    def __init__(self, path: str | PathLike[str], *, reading: Reading = at_once) -> None:
        self.path = Path(path)
        self._reading = reading
        if not os.path.isfile(self.path):  # noqa: PTH113 - Path's raises where it may not look
            raise FrameError(f"expected a video file at {self.path}, got none.")
        if self.path.suffix.lower() == ".gif":
            raise FrameError(
                f"expected a video, got the GIF {self.path}, of which OpenCV may leave frames out without a word. "
                "Use predict for its first frame, or convert it to MP4."
            )

    def __iter__(self) -> Iterator[Frame]:
        # Never released by hand: where a read was given up, the thread that is still in it holds the file.
        capture = self._reading(partial(cv2.VideoCapture, for_opencv(self.path)))
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        index = 0
        while True:
            given, image_bgr = self._reading(capture.read)
            if not given:
                break
            image_rgb = np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
            yield Frame(image_rgb, time.monotonic(), str(self.path), index)
            index += 1
        del capture
        if index == 0:
            raise FrameError(f"expected a video at {self.path}, got a file without a frame that OpenCV can read.")
        # The number alone proves nothing: whole files state frames that an edit list or a codec leaves out.
        if index < stated and self._reading(partial(_is_cut_short, self.path)):
            raise FrameError(
                f"expected {stated:.0f} frames in {self.path}, got {index}: the file ends too early. "
                "Copy or record it again."
            )


def open_source(source: SourceLike, *, reading: Reading = at_once) -> FrameSource:
    """Choose the source that ``source`` names. A number is a camera, and so is a device such as ``/dev/video0`` or
    ``/dev/v4l/by-id/…``, whose name stays when a camera is plugged in anew; a text with ``://`` is a network camera.

    Args:
        source: See :data:`SourceLike`. A source is given back as it is.
        reading: How files of a folder, and frames of a video, are read and decoded.

    Raises:
        FrameError: It cannot be opened, or is a single picture.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, str) and not source:
        raise FrameError("expected a camera, video or folder, got an empty name.")
    if isinstance(source, int) or _names_camera(source):
        return Camera(source if isinstance(source, int) else str(source))
    if isinstance(source, str | PathLike):
        return reading(partial(_open_files, Path(source), reading))  # a drive that hangs does so at the first look
    if isinstance(source, np.ndarray) and source.ndim < 4:
        raise FrameError(f"expected many pictures, got an array of shape {source.shape}. Use predict for one picture.")
    if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | memoryview):
        return Arrays(source)
    raise FrameError(f"expected a camera, video, folder or pictures, got {type(source).__name__}.")


def for_opencv(path: Path) -> bytes:
    """Name a file so that OpenCV takes it for one: a colon may begin an address, and text that is no UTF-8 ends it."""
    return os.fsencode(path.absolute())


def _open_files(path: Path, reading: Reading) -> Folder | Video:
    if os.path.isdir(path):  # noqa: PTH112 - Path's raises where it may not look
        return Folder(path, reading=reading)
    if path.suffix.lower() in PICTURE_SUFFIXES:
        raise FrameError(f"expected a camera, video or folder, got the picture {path}. Use predict for one picture.")
    return Video(path, reading=reading)


def _is_cut_short(video: Path) -> bool:
    """Say whether an AVI, MP4 or Matroska file ends before the last of its parts does."""
    at = 0
    with suppress(OSError), video.open("rb") as file:  # one that went away meanwhile is
        size = file.seek(0, os.SEEK_END)
        while at < size:
            file.seek(at)
            length = _length_of_part(file.read(16), size - at)
            if length is None or length < 8:  # of another kind, or damaged
                return False
            at += length
        return at > size
    return True


def _length_of_part(head: bytes, left: int) -> int | None:
    """Bytes of the part of a file that begins with these 16, and has so many left; None if it is of no known kind."""
    if head.startswith(b"RIFF"):
        return 8 + int.from_bytes(head[4:8], "little")
    if head[4:8] in _MP4_PARTS:
        length = int.from_bytes(head[:4]) or left  # 0: to the end of the file
        return int.from_bytes(head[8:]) if length == 1 else length
    if int.from_bytes(head[:4]) in (_EBML, _SEGMENT) and len(head) == 16 and head[4]:
        digits = 9 - head[4].bit_length()  # bytes of the length; the first bit that is set says how many
        unknown = (1 << 7 * digits) - 1
        length = int.from_bytes(head[4 : 4 + digits]) & unknown
        return left if length == unknown else 4 + digits + length  # unknown: it was recorded without a way back
    return None


def _names_camera(source: object) -> bool:
    if isinstance(source, str) and "://" in source:
        return True
    if not isinstance(source, str | PathLike) or not Path(source).is_relative_to("/dev"):
        return False
    return not os.path.isfile(source) and not os.path.isdir(source)  # noqa: PTH112, PTH113 - /dev/shm holds files, too
