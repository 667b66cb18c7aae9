"""A two-attribute set that needs no download: a shape (task) in a tint (sensitive) on a noisy ground.

Made for tests and for trying a recipe out: small enough to learn in seconds, and both attributes are independent.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["SHAPES", "TINTS", "draw_pictures"]

SHAPES = ("disc", "cross")
TINTS = {"red": (200, 60, 60), "green": (60, 180, 60), "blue": (60, 80, 200)}


def draw_pictures(count: int, size_px: int, seed: int) -> tuple[npt.NDArray[np.uint8], list[str], list[str]]:
    """Draw ``count`` pictures.

    Returns:
        Pictures uint8 ``(count, size_px, size_px, 3)``, shape names, tint names. The same arguments give the same
        pictures.
    """
    random = np.random.default_rng(seed)
    shapes = [SHAPES[i] for i in random.integers(len(SHAPES), size=count)]
    tints = [list(TINTS)[i] for i in random.integers(len(TINTS), size=count)]
    pictures = random.normal(128, 40, (count, size_px, size_px, 3)).clip(0, 255).astype(np.uint8)
    for picture, shape, tint in zip(pictures, shapes, tints, strict=True):
        radius = int(size_px * random.uniform(0.2, 0.35))
        x, y = (int(c) for c in random.integers(radius, size_px - radius, size=2))
        if shape == "disc":
            cv2.circle(picture, (x, y), radius, TINTS[tint], thickness=-1)
        else:
            width = max(1, radius // 3)
            cv2.line(picture, (x - radius, y), (x + radius, y), TINTS[tint], width)
            cv2.line(picture, (x, y - radius), (x, y + radius), TINTS[tint], width)
    return pictures, shapes, tints
