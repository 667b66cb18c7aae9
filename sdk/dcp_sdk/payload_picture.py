"""Draw a frame beside what the server receives of it, for people at the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from .contract import Contract
from .obfuscate import Payload
from .predictions import channels_sent
from .preprocess import Image

__all__ = ["HEIGHT_PX", "PANEL_PX", "WIDTH_PX", "mosaic", "side_by_side"]

PANEL_PX = 480
"""Side of what :func:`mosaic` draws."""
_TITLE_PX, _FRAME_PX, _GAP_PX = 40, 640, 16
WIDTH_PX, HEIGHT_PX = _FRAME_PX + _GAP_PX + PANEL_PX, _TITLE_PX + PANEL_PX
"""Size of the drawing, the same for every frame, as a video needs it."""
_BACKGROUND, _WHITE, _BAR = (18, 18, 18), (240, 240, 240), (80, 170, 250)


def side_by_side(frame_rgb: Image, payload: Payload, contract: Contract) -> Image:
    """Draw the frame, and the values of the channels that left with their numbers.

    Maps are tiles, from black for 0 to white for the largest value that the wire can carry; where a channel is one
    value, it is a bar.

    Args:
        frame_rgb: uint8 ``(H, W, 3)``, RGB.
        payload: Arrays ``(1, *shape)`` in the order of ``contract.payload``, as they were sent.
        contract: Says what they mean.

    Returns:
        uint8 ``(HEIGHT_PX, WIDTH_PX, 3)``, BGR, as OpenCV shows and writes it.
    """
    canvas = np.full((HEIGHT_PX, WIDTH_PX, 3), _BACKGROUND, np.uint8)
    _write(canvas, "the camera's picture, stays here", (8, 28))
    canvas[_TITLE_PX:, :_FRAME_PX] = _fit(frame_rgb[..., ::-1])
    left = _FRAME_PX + _GAP_PX
    _write(canvas, f"all that was sent: {contract.payload_bytes} bytes", (left + 8, 28))
    values = contract.unpack(payload[-1])[0].astype(np.float32) / (2**contract.bits - 1)
    numbers = channels_sent(contract, payload)[0] or range(len(values))
    panel = _maps(values, numbers) if values.ndim == 3 and values[0].size > 1 else _bars(values, numbers)
    canvas[_TITLE_PX:, left:] = panel
    return canvas


def _fit(image_bgr: Image) -> Image:
    """Scale a picture into its panel, whatever its shape."""
    height, width = image_bgr.shape[:2]
    scale = min(_FRAME_PX / width, PANEL_PX / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    panel = np.full((PANEL_PX, _FRAME_PX, 3), _BACKGROUND, np.uint8)
    top, left = (PANEL_PX - size[1]) // 2, (_FRAME_PX - size[0]) // 2
    panel[top : top + size[1], left : left + size[0]] = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
    return panel


def mosaic(maps: Mapping[int, npt.NDArray[np.float32]], places: int) -> Image:
    """Lay maps out as tiles; a place without a map stays black.

    Args:
        maps: float32 ``(h, w)`` in 0..1, by place from 0.
        places: Number of tiles.

    Returns:
        uint8 ``(PANEL_PX, PANEL_PX, 3)``, BGR.
    """
    panel = np.full((PANEL_PX, PANEL_PX, 3), _BACKGROUND, np.uint8)
    for place in range(places):
        top, left, tile = _tile(place, places)
        inside = (slice(top + 1, top + tile - 1), slice(left + 1, left + tile - 1))
        panel[inside] = _coloured(maps[place], tile - 2) if place in maps else 0
    return panel


def _tile(place: int, places: int) -> tuple[int, int, int]:
    """Top, left and side of a tile."""
    columns = math.ceil(math.sqrt(places))
    side = PANEL_PX // columns
    row, column = divmod(place, columns)
    return row * side, column * side, side


def _coloured(values: npt.NDArray[np.float32], side_px: int) -> Image:
    grey = (255 * np.clip(values, 0, 1)).astype(np.uint8)
    scaled = cv2.resize(grey, (side_px, side_px), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO), np.uint8)


def _maps(values: npt.NDArray[np.float32], numbers: Sequence[int]) -> Image:
    """Lay maps ``(k, h, w)`` of 0..1 out as tiles with their numbers."""
    panel = mosaic(dict(enumerate(values)), len(values))
    for place, number in enumerate(numbers):
        top, left, _ = _tile(place, len(values))
        _write(panel, str(number), (left + 4, top + 16), 0.45)
    return panel


def _bars(values: npt.NDArray[np.float32], numbers: Sequence[int]) -> Image:
    """Draw values of 0..1 as bars from the ground."""
    panel = np.full((PANEL_PX, PANEL_PX, 3), _BACKGROUND, np.uint8)
    heights = np.clip(values.reshape(len(values), -1).mean(axis=1), 0, 1)
    step = PANEL_PX / len(heights)
    ground = PANEL_PX - 30
    for position, (number, height) in enumerate(zip(numbers, heights, strict=True)):
        left, right = (
            round((position + 0.15) * step),
            max(round((position + 0.85) * step), round((position + 0.15) * step) + 1),
        )
        panel[ground - round(float(height) * (ground - 10)) : ground + 1, left:right] = _BAR
        if step >= 24:
            _write(panel, str(number), (left, PANEL_PX - 8), 0.5)
    return panel


def _write(canvas: Image, text: str, position: tuple[int, int], size: float = 0.6) -> None:
    cv2.putText(canvas, text, position, cv2.FONT_HERSHEY_SIMPLEX, size, _WHITE, 1, cv2.LINE_AA)
