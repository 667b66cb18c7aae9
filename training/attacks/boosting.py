"""Gradient boosting on values, statistics and mask: indifferent to scaling and heavy tails, on which networks fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss

from ..payloads import Payloads
from .base import AttackSettings, Guess, hold_out
from .scaling import SCALINGS

__all__ = ["boost", "boosting"]

Columns = Callable[[Payloads], npt.NDArray[np.float32]]

_GRID = 4
"""Maps wider than this are averaged down to 4 x 4 values."""
_BATCH = 512
_BINS = 255
"""scikit-learn's own number."""
_LEAF = 20
"""Pairs in a leaf at least, where there are enough: scikit-learn's own choice."""
_VALIDATION = 0.1
"""Share of the pairs on which boosting itself stops."""


def boosting(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Boost on raw and on ranked values (averages differ), and keep what held-out pairs prefer."""
    pairs, chooser = hold_out(leaked, settings.seed, settings.classes)
    guesses: list[tuple[float, Guess]] = []
    for name in ("raw", "rank-transformed"):
        scale = SCALINGS[name](pairs)
        guess, loss = boost(scale(pairs), scale(chooser), scale(target), _columns, settings)
        guesses.append((loss, guess.model_copy(update={"how": f"{name}, {guess.how}"})))
    return min(guesses, key=lambda guess: guess[0])[1]


def boost(
    pairs: Payloads, chooser: Payloads, target: Payloads, columns: Columns, settings: AttackSettings
) -> tuple[Guess, float]:
    """Fit histogram gradient boosting, stopped early; the guess and its loss on ``chooser``."""
    # Too few pairs to set some of every class aside: then it stops after its rounds.
    enough = int(_VALIDATION * len(pairs)) >= settings.classes and np.bincount(pairs.labels).min() >= 2
    model = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        learning_rate=0.1,
        max_features=0.2,
        min_samples_leaf=min(_LEAF, max(2, len(pairs) // _LEAF)),  # of few pairs a leaf would take all
        early_stopping=bool(enough),
        validation_fraction=_VALIDATION,
        n_iter_no_change=15,
        random_state=settings.seed,
    )
    values = columns(pairs)
    binned = _binning(values)
    known = binned(values)
    model.fit(known, pairs.labels, sample_weight=pairs.weights())
    classes = np.arange(settings.classes)

    def probabilities(bins: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        result = np.zeros((len(bins), settings.classes))
        result[:, model.classes_] = model.predict_proba(bins)
        return result

    def loss(bins: npt.NDArray[np.uint8], seen: Payloads) -> float:
        return float(log_loss(seen.labels, probabilities(bins), labels=classes, sample_weight=seen.weights()))

    held_out = loss(binned(columns(chooser)), chooser)
    guess = Guess(
        probabilities=probabilities(binned(columns(target))).astype(np.float32),
        training_loss=loss(known, pairs),
        held_out_loss=held_out,
        how=f"{model.n_iter_} rounds",
    )
    return guess, held_out


def _binning(values: npt.NDArray[np.float32]) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.uint8]]:
    """Return what puts each column into bins of equal shares of ``values``.

    scikit-learn would do it, too, but weighs pairs for it, which takes thirty times as long as growing the trees.
    """
    edges = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1], axis=0).astype(np.float32)

    def binned(those: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        columns = [np.searchsorted(edge, column) for edge, column in zip(edges.T, those.T, strict=True)]
        return np.stack(columns, axis=1).astype(np.uint8)

    return binned


def _columns(payloads: Payloads) -> npt.NDArray[np.float32]:
    """One row per payload: values (averaged to a 4 x 4 grid), mean, maximum and deviation of each channel, mask."""
    rows = []
    for batch in payloads.batches(_BATCH):
        dense = batch.dense()
        grid = dense if dense.shape[-1] <= _GRID else F.adaptive_avg_pool2d(dense, _GRID)
        statistics = torch.cat([dense.mean((2, 3)), dense.amax((2, 3)), dense.std((2, 3), unbiased=False)], dim=1)
        rows.append(np.concatenate([grid.flatten(1).numpy(), statistics.numpy(), batch.mask()], axis=1))
    return np.concatenate(rows)
