"""Pictures that a report may show beside what was recovered of them: drawn or public-domain, never of the data set."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Panels
from dcp_sdk.frames import load_image
from dcp_sdk.preprocess import Image, preprocess

from ..attacks.reconstruction import Pictures
from ..config import DataConfig
from ..data import LabelledPictures, Splits
from ..payloads import Payloads, collect

__all__ = ["as_panels", "panel_payloads", "panel_pictures", "png"]

_PORTRAIT = Path(__file__).resolve().parents[2] / "examples" / "data" / "astronaut.jpg"
_PORTRAIT_ORIGIN = "Eileen Collins, portrait by NASA, public domain"
_CROPS = (slice(None), slice(22, 202))
"""Rows and columns of the portrait: all of it, and the face as tight as data sets of faces cut it."""
_DRAWN = 2


def panel_pictures(data: DataConfig, splits: Splits) -> tuple[Pictures, str]:
    """Choose pictures like those of a data set, none of which is in it unless it was drawn.

    Args:
        data: The recipe's data section.
        splits: Its data.

    Returns:
        uint8 ``(N, S, S, 3)``, as the device graph takes them, and where they come from.
    """
    if data.kind == "generated":
        return splits.val.pictures[:_DRAWN], "drawn by training/generated.py"
    portrait = load_image(_PORTRAIT)
    crops = [preprocess(portrait[crop, crop], data.preprocessing) for crop in _CROPS]
    return np.stack(crops), _PORTRAIT_ORIGIN


def panel_payloads(bundle: Path, manifest: Manifest, pictures: Pictures) -> Payloads:
    """Send panels through the device graph; their labels mean nothing."""
    unlabelled = np.zeros(len(pictures), np.int64)
    return collect(bundle, manifest, LabelledPictures(pictures, unlabelled, unlabelled))


def as_panels(pictures: Pictures, origin: str) -> Panels:
    """Keep pictures in a report."""
    return Panels(origin=origin, pictures=tuple(map(png, pictures)))


def png(picture: Image) -> str:
    """Encode a picture, uint8 ``(S, S, 3)`` RGB, as PNG in base64."""
    _, encoded = cv2.imencode(".png", picture[..., ::-1])
    return base64.b64encode(encoded.tobytes()).decode("ascii")
