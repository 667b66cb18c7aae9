"""Draw what the camera saw, what the device computed, and what left it, side by side. Used by ``demo.py``."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from dcp_sdk.payload_picture import PANEL_PX, mosaic

Map = npt.NDArray[np.float32]
Canvas = npt.NDArray[np.uint8]

MARGIN_PX, TITLE_PX = 32, 84
BACKGROUND, WHITE, GREY = (18, 18, 18), (240, 240, 240), (150, 150, 150)


def draw(
    crop_rgb: Canvas, activations: Map, sent: Mapping[int, Map], top: float, captions: list[tuple[str, str]]
) -> Canvas:
    """Compose the picture.

    Args:
        crop_rgb: uint8 ``(S, S, 3)``, what goes into the device graph.
        activations: float32 ``(C, h, w)``, all the channels.
        sent: The channels that left, dequantised, float32 ``(h', w')`` by number.
        top: The largest value that can be sent: the brightest colour in both panels, so that they can be compared.
        captions: Title and subtitle of each of the three panels.

    Returns:
        uint8 ``(H, W, 3)``, BGR, as ``cv2.imwrite`` takes it.
    """
    everything = dict(enumerate(activations))
    panels = [
        cv2.resize(crop_rgb[..., ::-1], (PANEL_PX, PANEL_PX), interpolation=cv2.INTER_CUBIC),
        _grid(everything, len(activations), top),
        _grid(sent, len(activations), top),
    ]
    step = PANEL_PX + MARGIN_PX
    canvas = np.full((TITLE_PX + step, MARGIN_PX + len(panels) * step, 3), BACKGROUND, np.uint8)
    for index, (panel, (title, subtitle)) in enumerate(zip(panels, captions, strict=True)):
        left = MARGIN_PX + index * step
        canvas[TITLE_PX : TITLE_PX + PANEL_PX, left : left + PANEL_PX] = panel
        _write(canvas, title, (left, 38), 0.8, WHITE)
        _write(canvas, subtitle, (left, 66), 0.55, GREY)
    return canvas


def _grid(maps: Mapping[int, Map], channels: int, top: float) -> Canvas:
    """Lay the maps out by channel number. The square root brings out what is faint."""
    return mosaic({number: np.sqrt(np.clip(values / top, 0, 1)) for number, values in maps.items()}, channels)


def _write(canvas: Canvas, text: str, position: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, position, cv2.FONT_HERSHEY_DUPLEX, size, colour, 1, cv2.LINE_AA)
