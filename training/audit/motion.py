"""One face in many frames of a video: it moves a little, and so does the light."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["moved"]

_SHIFT, _SCALE, _TURN_DEG = 0.04, 0.05, 5.0
"""At most: of the picture's side, of its size."""
_CONTRAST, _BRIGHTNESS = 0.1, 12.0


def moved(pictures: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Shift, scale and turn each picture a little, and change its contrast and brightness, each in its own way.

    Args:
        pictures: uint8 ``(N, S, S, 3)``.
        rng: Where it draws from.

    Returns:
        The same shape. Borders are repeated.
    """
    return np.stack([_moved(picture, *rng.uniform(-1, 1, 6)) for picture in pictures])


def _moved(
    picture: npt.NDArray[np.uint8],
    right: float,
    down: float,
    scale: float,
    turn: float,
    contrast: float,
    brightness: float,
) -> npt.NDArray[np.uint8]:
    side = picture.shape[0]
    middle = ((side - 1) / 2, (side - 1) / 2)
    change = cv2.getRotationMatrix2D(middle, _TURN_DEG * turn, 1 + _SCALE * scale)
    change[:, 2] += np.array([right, down]) * _SHIFT * side
    warped = cv2.warpAffine(picture, change, (side, side), borderMode=cv2.BORDER_REPLICATE)
    lit = (warped.astype(np.float32) - 127.5) * (1 + _CONTRAST * contrast) + 127.5 + _BRIGHTNESS * brightness
    return np.asarray(np.rint(lit).clip(0, 255), np.uint8)
