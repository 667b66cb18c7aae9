"""Gradient boosting on values, statistics and mask: indifferent to scaling and heavy tails, on which networks fail."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss

from ..payloads import Payloads
from .base import AttackSettings, Guess

__all__ = ["boosting"]

_GRID = 4
"""Maps wider than this are averaged down to 4 x 4 values."""
_BATCH = 512


def boosting(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Fit histogram gradient boosting, stopped early on a tenth of the leaked pairs."""
    model = HistGradientBoostingClassifier(
        max_iter=settings.trees,
        learning_rate=0.1,
        max_features=0.2,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=15,
        random_state=settings.seed,
    )
    values = _columns(leaked)
    model.fit(values, leaked.labels)
    classes = np.arange(settings.classes)
    probabilities = np.zeros((len(target), settings.classes), np.float32)
    probabilities[:, model.classes_] = model.predict_proba(_columns(target))
    known = np.zeros((len(leaked), settings.classes))
    known[:, model.classes_] = model.predict_proba(values)
    return Guess(probabilities, float(log_loss(leaked.labels, known, labels=classes)))


def _columns(payloads: Payloads) -> npt.NDArray[np.float32]:
    """One row per payload: values (averaged to a 4 x 4 grid), mean, maximum and deviation of each channel, mask."""
    rows = []
    for start in range(0, len(payloads), _BATCH):
        batch = payloads[np.arange(start, min(start + _BATCH, len(payloads)))]
        dense = batch.dense()
        grid = dense if dense.shape[-1] <= _GRID else F.adaptive_avg_pool2d(dense, _GRID)
        statistics = torch.cat([dense.mean((2, 3)), dense.amax((2, 3)), dense.std((2, 3), unbiased=False)], dim=1)
        rows.append(np.concatenate([grid.flatten(1).numpy(), statistics.numpy(), batch.mask()], axis=1))
    return np.concatenate(rows)
