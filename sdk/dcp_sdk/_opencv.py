"""OpenCV's limit for pictures, set before anything loads it: a file of a kilobyte can declare a billion pixels."""

import os

from .errors import ConfigError

__all__ = ["LARGEST_PICTURE_PIXELS"]

_VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"


def _largest() -> int:
    stated = os.environ.setdefault(_VARIABLE, str(1 << 26))
    if not stated.isascii() or not stated.isdigit():
        raise ConfigError(f"{_VARIABLE}: expected a number of pixels, such as {1 << 26}, got {stated!r}.")
    return int(stated)


LARGEST_PICTURE_PIXELS = _largest()
"""Larger picture files are refused before memory is taken for them, unless the program loaded OpenCV before this
package. The environment variable, if it is set, counts."""
