"""Crop and resize: uint8 in, uint8 out. Training's evaluation uses this very function, so device and training agree.

Normalising (mean, std) happens inside the device graph, not here.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ._opencv import LARGEST_PICTURE_PIXELS
from .contract import ImagePreprocessing
from .errors import FrameError

__all__ = ["Image", "check_frame", "preprocess"]

Image = npt.NDArray[np.uint8]
"""An RGB picture: uint8 ``(H, W, 3)``."""


def check_frame(frame: object) -> Image:
    """Return ``frame`` if it is an RGB picture, uint8 ``(H, W, 3)``, with at least 1 pixel and no more than a file may.

    Raises:
        FrameError: It is something else; the message says what, and how to convert it.
    """
    expected = "expected an RGB picture as uint8 (H, W, 3)"
    if not isinstance(frame, np.ndarray):
        raise FrameError(
            f"{expected}, got {type(frame).__name__}. Give the path or the bytes of a picture file, or an array: of a "
            "PIL picture numpy.asarray(picture.convert('RGB'))."
        )
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[-1] == 1):
        raise FrameError(f"{expected}, got grey {frame.shape}. Use numpy.repeat(grey[..., None], 3, axis=-1).")
    if frame.ndim == 3 and frame.shape[-1] == 4:
        raise FrameError(f"{expected}, got RGBA {frame.shape}. Drop the alpha channel: frame[..., :3].")
    if frame.ndim == 3 and frame.shape[0] in (1, 3, 4) and frame.shape[-1] != 3:
        raise FrameError(f"{expected}, got channels first {frame.shape}. Use frame.transpose(1, 2, 0).")
    if frame.ndim != 3 or frame.shape[-1] != 3:
        raise FrameError(f"{expected}, got shape {frame.shape}. One picture at a time; predict_batch takes several.")
    if frame.dtype != np.uint8:
        raise FrameError(f"{expected}, got {frame.dtype}. Scale to 0..255 yourself, then use .astype(numpy.uint8).")
    if 0 in frame.shape:
        raise FrameError(f"{expected}, got an empty picture of shape {frame.shape}.")
    height, width, _ = frame.shape
    if height * width > LARGEST_PICTURE_PIXELS:
        raise FrameError(
            f"{expected} of at most {LARGEST_PICTURE_PIXELS:,} pixels, got {height * width:,} in shape {frame.shape}. "
            "Make it smaller, or set OPENCV_IO_MAX_IMAGE_PIXELS before dcp_sdk is imported."
        )
    return frame


def preprocess(frame_rgb: Image, spec: ImagePreprocessing) -> Image:
    """Keep the largest centred square of ``frame_rgb`` and resize it.

    Args:
        frame_rgb: uint8 ``(H, W, 3)``, RGB, any size from 1 x 1.
        spec: Size and interpolation, from the contract.

    Returns:
        uint8 ``(S, S, 3)``, C-contiguous, never a view of the frame's memory.

    Raises:
        FrameError: ``frame_rgb`` is not such a picture.
    """
    frame_rgb = check_frame(frame_rgb)
    height, width = frame_rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame_rgb[top : top + side, left : left + side]
    if side == spec.size_px:
        return np.array(square, order="C")
    interpolation = cv2.INTER_AREA if side > spec.size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (spec.size_px, spec.size_px), interpolation=interpolation), np.uint8)
