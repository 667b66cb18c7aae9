"""Permutation test: what adversaries would read by luck, their answers against the tested labels, shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from dcp_sdk.bundles.measurements import Interval, Luck

from ..attacks import Guess
from ..metrics import ranked_classes

__all__ = ["permutation_test"]

_SHUFFLES = 1000


def permutation_test(
    adversaries: Sequence[Sequence[Guess]],
    truth: npt.NDArray[np.int64],
    labels: Sequence[str],
    shuffles: int = _SHUFFLES,
) -> Luck | None:
    """Let the best of all tries count, as in the report, for labels that the answers have nothing to do with.

    Tries are not independent of each other: the answers keep what they have in common, since all meet the same order
    (Westfall and Young, "Resampling-Based Multiple Testing", 1993: the distribution of the maximum).

    Args:
        adversaries: Answers for the same N pictures: of each adversary every try, whether or not it turned out well.
        truth: The pictures' labels, int64 ``(N,)``.
        labels: Their names.
        shuffles: How many orders.

    Returns:
        None for fewer than two tries, or where only one label occurs.
    """
    present = np.unique(truth)
    guesses = [guess for tries in adversaries for guess in tries]
    if len(guesses) < 2 or len(present) < 2:
        return None
    first = np.cumsum([0, *(len(tries) for tries in adversaries)])
    sizes = np.array([(truth == label).sum() for label in present])
    answers = np.stack([guess.probabilities.argmax(1)[:, None] == present for guess in guesses]).astype(np.float32)
    ranked = np.isin(present, ranked_classes(truth))
    ranks = np.stack([rankdata(guess.probabilities[:, present[ranked]], axis=0) for guess in guesses])
    rng = np.random.default_rng(0)
    shares, exposures, areas = [], [], []
    for _ in range(shuffles):
        inside = (rng.permutation(truth)[:, None] == present).astype(np.float32)
        called = np.einsum("tnc,ng->tcg", answers, inside, optimize=True) / sizes  # as c, of those in g
        recalls = np.diagonal(called, axis1=1, axis2=2)
        read = recalls.mean(1)
        shares.append(read.max())
        reported = [start + int(read[start:end].argmax()) for start, end in pairwise(first)]
        exposed = recalls - (called.sum(2) - recalls) / (len(present) - 1)  # AttackResult.exposures
        exposures.append(exposed[reported].max(0))
        if ranked.any():
            some = sizes[ranked]
            above = np.einsum("tnc,nc->tc", ranks, inside[:, ranked]) - some * (some + 1) / 2  # Mann and Whitney's U
            areas.append((above / (some * (len(truth) - some))).mean(1).max())
    return Luck(
        shuffles=shuffles,
        balanced_accuracy=_spread(shares),
        auc=_spread(areas) if areas else None,
        exposure=_spread(np.max(exposures, axis=1)),
        exposures=dict(zip([labels[number] for number in present], _limits(np.array(exposures)), strict=True)),
    )


def _limits(exposures: npt.NDArray[np.float64]) -> list[float]:
    """Return a limit for each column, ``(shuffles, groups)``, so that in 97.5 % of rows none is beyond its own.

    Each group is measured by how much it varies itself: the limit of a few pictures is no excuse for many (Westfall and
    Young, studentised).
    """
    mean, deviation = exposures.mean(0), np.maximum(exposures.std(0), np.finfo(np.float64).tiny)
    beyond = np.quantile(((exposures - mean) / deviation).max(1), 0.975)
    return [float(limit) for limit in mean + beyond * deviation]


def _spread(results: Sequence[float] | npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(results, [0.025, 0.975])
    return Interval(value=float(np.mean(results)), low=float(low), high=float(high))
