"""An adversary that looks at pictures, real or drawn: what a drawing gives away, beside how alike it is."""

from __future__ import annotations

import cv2
import numpy as np
from torch import nn

from ..networks import RemainingLayers
from ..payloads import Payloads
from .base import AttackSettings
from .neural import learner
from .reconstruction import Pictures
from .scaling import standardised

__all__ = ["as_payloads", "learn_pictures"]

_SIZE_PX = 64
"""Larger pictures are made smaller first: a face's attributes are still seen, in a third of the time."""


def as_payloads(pictures: Pictures, behind: Payloads) -> Payloads:
    """Give pictures ``(N, S, S, 3)`` the form and the labels of payloads, three channels each."""
    if pictures.shape[1] > _SIZE_PX:
        size = (_SIZE_PX, _SIZE_PX)
        pictures = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])
    channels = np.tile(np.arange(3, dtype=np.uint8), (len(pictures), 1))
    values = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    return Payloads(channels, values, behind.labels, behind.answers, 3, 1 / 255)


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    del shape
    return RemainingLayers(settings.network.arch, 0, settings.classes)


learn_pictures = learner("ResNet on pictures", _network, {"standardised": standardised})
"""Nothing disguises the values of pictures: there is one scaling to try."""
