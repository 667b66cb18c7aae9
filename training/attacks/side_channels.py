"""What betrays something without the values: which channels were kept, how long the device took, what was answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..payloads import Payloads
from .base import AttackSettings, Guess, hold_out
from .boosting import boost

__all__ = ["answer_only", "latency", "mask_only"]


def mask_only(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Boost on the mask alone."""
    pairs, chooser = hold_out(leaked, settings.seed, settings.classes)
    return boost(pairs, chooser, target, Payloads.mask, settings)[0]


def latency(
    leaked: tuple[Sequence[float], Payloads], target: tuple[Sequence[float], Payloads], settings: AttackSettings
) -> Guess:
    """Boost on one number per picture, the milliseconds of its device graph; each side with its payloads' labels."""

    def as_payloads(times: Sequence[float], behind: Payloads) -> Payloads:
        values = np.asarray(times, np.float32)[:, None, None, None]
        return Payloads(np.zeros((len(behind), 1), np.uint8), values, behind.labels, behind.answers, 1, 1.0)

    pairs, chooser = hold_out(as_payloads(*leaked), settings.seed, settings.classes)
    return boost(pairs, chooser, as_payloads(*target), lambda payloads: payloads.values()[:, :, 0, 0], settings)[0]


def answer_only(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Name the group that is likeliest for its size, given the task's answer: no payload is needed for that."""
    counts = np.zeros((settings.classes, 1 + int(max(leaked.answers.max(), target.answers.max()))))
    np.add.at(counts, (leaked.labels, leaked.answers), 1)
    likely = (counts + 1) / (counts.sum(1, keepdims=True) + counts.shape[1])
    posterior = (likely / likely.sum(0)).T.astype(np.float32)
    right = posterior[leaked.answers, leaked.labels]
    return Guess(probabilities=posterior[target.answers], training_loss=-float(np.log(right).mean()), how="frequencies")
