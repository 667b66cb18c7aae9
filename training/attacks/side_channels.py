"""What betrays something without the values: which channels were kept, how long the device took, what was answered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..payloads import Payloads
from .base import AttackSettings, Guess, hold_out
from .boosting import boost

__all__ = ["answer_only", "mask_only", "numbers_only"]


def mask_only(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Boost on the mask alone."""
    pairs, chooser = hold_out(leaked, settings.seed, settings.classes)
    return boost(pairs, chooser, target, Payloads.mask, settings)[0]


def numbers_only(
    leaked: tuple[npt.ArrayLike, Payloads], target: tuple[npt.ArrayLike, Payloads], settings: AttackSettings
) -> Guess:
    """Boost on a few numbers beside each payload, ``(N,)`` or ``(N, D)``, and nothing of it: the milliseconds of its
    device graph, say, or the answer's probabilities. Each side with the payloads whose labels count.
    """

    def as_payloads(numbers: npt.ArrayLike, behind: Payloads) -> Payloads:
        values = np.asarray(numbers, np.float32).reshape(len(behind), -1, 1, 1)
        channels = np.tile(np.arange(values.shape[1]), (len(behind), 1))
        return Payloads(channels, values, behind.labels, behind.answers, values.shape[1], 1.0)

    pairs, chooser = hold_out(as_payloads(*leaked), settings.seed, settings.classes)
    return boost(pairs, chooser, as_payloads(*target), lambda payloads: payloads.values()[:, :, 0, 0], settings)[0]


def answer_only(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Name the group that is likeliest for its size, given ``answers``: no payload is needed for that."""
    counts = np.zeros((settings.classes, 1 + int(max(leaked.answers.max(), target.answers.max()))))
    np.add.at(counts, (leaked.labels, leaked.answers), 1)
    likely = (counts + 1) / (counts.sum(1, keepdims=True) + counts.shape[1])
    posterior = (likely / likely.sum(0)).T.astype(np.float32)
    right = posterior[leaked.answers, leaked.labels]
    return Guess(probabilities=posterior[target.answers], training_loss=-float(np.log(right).mean()), how="frequencies")
