"""A frame: one picture with its capture time. What it can be made from, and what gives many of them."""

from __future__ import annotations

import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from ._opencv import LARGEST_PICTURE_PIXELS
from .errors import FrameError
from .preprocess import Image, check_frame

__all__ = ["Frame", "FrameLike", "FrameSource", "as_frame", "load_image"]

_LARGEST_FILE = 8 * LARGEST_PICTURE_PIXELS
"""Bytes: 16 bits of four channels of each pixel, uncompressed."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and where it comes from."""

    image_rgb: Image = field(repr=False)
    """uint8 ``(H, W, 3)``, RGB. Left out of the text of a frame, which may stand in anybody's log."""
    captured_at: float
    """Value of ``time.monotonic()``, in seconds, when the picture was taken, or else read."""
    source: str
    """Name of the camera, file or caller."""
    index: int = 0
    """Position in the source, from 0. A camera's numbers have gaps where frames were dropped."""

    @property
    def age_ms(self) -> float:
        """Milliseconds since the capture."""
        return (time.monotonic() - self.captured_at) * 1000


FrameLike = str | PathLike[str] | bytes | npt.NDArray[Any] | Frame
"""What ``predict`` takes: path or bytes of a picture file, RGB array uint8 ``(H, W, 3)``, or a frame."""


class FrameSource(ABC):
    """Frames one after another. Closes itself at the end of a ``with`` block.

    The array of a frame that was given must not change any more: a stream asks for the next one while it waits.
    """

    live: bool = False
    """Whether frames come by themselves, as from a camera: then a stream drops those that it is too slow for."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Give the frames in order.

        Raises:
            FrameError: A frame is not a picture, or none came.
        """

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Let go of files and devices. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_image(picture: str | PathLike[str] | bytes) -> Image:
    """Decode a picture file. Grey and transparent ones become RGB, and EXIF orientation is applied.

    Args:
        picture: Path of the file, or its bytes. Any format that OpenCV reads. Of 16 bits the upper eight are taken:
            what a camera of 10 or 12 bits wrote into the lower ones has to be scaled before.

    Returns:
        uint8 ``(H, W, 3)``, RGB.

    Raises:
        FrameError: The file is missing, empty, or not a picture of at most ``OPENCV_IO_MAX_IMAGE_PIXELS`` pixels.
    """
    if not isinstance(picture, str | PathLike | bytes):
        raise FrameError(
            f"expected the path or the bytes of a picture file, got {type(picture).__name__}. "
            "Use bytes(…) of a buffer, or .read() of an open file."
        )
    if isinstance(picture, bytes):
        data, name = picture, f"{len(picture)} bytes"
    else:
        name = fspath(picture)
        data = _read(Path(picture), name)
    if not data:
        raise FrameError(f"expected a picture, got an empty file ({name}).")
    if data.startswith(_PNG) and not _chunks_fit(data):
        raise FrameError(f"expected a picture, got a PNG file that is cut short or damaged ({name}).")
    try:
        image_bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise FrameError(
            f"expected a picture of at most {LARGEST_PICTURE_PIXELS:,} pixels that OpenCV reads, got another ({name})."
        ) from error
    if image_bgr is None:
        raise FrameError(
            f"expected a picture, got something that is none ({name}). JPEG, PNG, WebP, BMP and TIFF work."
        )
    return np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _read(path: Path, name: str) -> bytes:
    expected = f"expected a picture file at {name!r}, got"
    try:
        if (why := _why_not(path.stat())) is None:
            return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise FrameError(f"{expected} {type(error).__name__}.") from error
    raise FrameError(f"{expected} {why}.")


def _why_not(facts: os.stat_result) -> str | None:
    """Say what keeps a file from being read, if anything does: to read a pipe or a device may never end."""
    if stat.S_ISDIR(facts.st_mode):
        return "a folder: `stream` takes those"
    if not stat.S_ISREG(facts.st_mode):
        return "a pipe or a device. Give the picture's bytes"
    return None if facts.st_size <= _LARGEST_FILE else f"{facts.st_size:,} bytes, and {_LARGEST_FILE:,} are the most"


def _chunks_fit(png: bytes) -> bool:
    """Say whether each chunk ends before the file does. OpenCV 5 takes memory for what it states, up to 4 GiB."""
    at, last = len(_PNG), False
    while not last:
        last = png[at + 4 : at + 8] == b"IEND"
        at += 12 + int.from_bytes(png[at : at + 4])  # length, name, content, checksum
        if at > len(png):
            return False
    return True


def as_frame(picture: FrameLike) -> Frame:
    """Turn whatever ``predict`` takes into a frame.

    Raises:
        FrameError: It is not a picture.
    """
    if isinstance(picture, Frame):
        return picture
    if isinstance(picture, bytes):
        return Frame(load_image(picture), time.monotonic(), "bytes")
    if isinstance(picture, str | PathLike):
        return Frame(load_image(picture), time.monotonic(), fspath(picture))
    return Frame(check_frame(picture), time.monotonic(), "array")
