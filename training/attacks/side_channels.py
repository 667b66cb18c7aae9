"""What betrays something without the values: which channels were kept, and how long the device took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..payloads import Payloads
from .base import AttackSettings, Guess, hold_out
from .boosting import boost

__all__ = ["latency", "mask_only"]


def mask_only(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Boost on the mask alone."""
    pairs, chooser = hold_out(leaked, settings.seed, settings.classes)
    return boost(pairs, chooser, target, Payloads.mask, settings)[0]


def latency(
    leaked: tuple[Sequence[float], npt.NDArray[np.int64]],
    target: tuple[Sequence[float], npt.NDArray[np.int64]],
    settings: AttackSettings,
) -> Guess:
    """Boost on one number per picture, the milliseconds of its device graph; each side with its sensitive labels."""

    def as_payloads(times: Sequence[float], labels: npt.NDArray[np.int64]) -> Payloads:
        values = np.asarray(times, np.float32)[:, None, None, None]
        return Payloads(np.zeros((len(labels), 1), np.uint8), values, labels, 1, 1.0)

    pairs, chooser = hold_out(as_payloads(*leaked), settings.seed, settings.classes)
    return boost(pairs, chooser, as_payloads(*target), lambda payloads: payloads.values()[:, :, 0, 0], settings)[0]
