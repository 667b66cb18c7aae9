"""OpenCV's limit for pictures, set before anything loads it: a file of a kilobyte can declare a billion pixels."""

import os

__all__ = ["LARGEST_PICTURE_PIXELS"]

LARGEST_PICTURE_PIXELS = int(os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26)))
"""Larger picture files are refused before memory is taken for them, unless the program loaded OpenCV before this
package. The environment variable, if it is set, counts."""
