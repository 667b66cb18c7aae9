"""The attacker who knows graph, noise and leaked pictures: how likely is this payload, picture by picture?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp

from ..payloads import Payloads
from .base import Guess

__all__ = ["LIKELIHOOD", "by_group", "likelihood", "log_likelihoods"]

LIKELIHOOD = "likelihood under the noise"
"""The name that reports use."""

Floats = npt.NDArray[np.float64]
_ROWS = 1024
"""Payloads that are compared with all pictures at once."""


def likelihood(
    leaked: Payloads, values: Floats, target: Payloads, deviation: float, levels: int, classes: int
) -> Guess:
    """Answer by Bayes' rule, with the leaked pictures as the population: no payload of theirs is needed.

    Nothing is learnt, so nothing depends on one draw of the noise, and nothing can fail to train.

    Args:
        leaked: Labels of the leaked pictures, and their payloads.
        values: What the leaked pictures give before noise, in 0..1, ``(N, D)``.
        target: M payloads of the same channels.
        deviation: Of the noise, on the scale of 0..1.
        levels: Steps of the quantiser.
        classes: Number of groups.
    """
    groups, weights = leaked.labels, leaked.weights()

    def answers(payloads: Payloads) -> Floats:
        steps = payloads.features.reshape(len(payloads), -1).astype(np.int64)
        rows = [
            by_group(log_likelihoods(steps[start : start + _ROWS], values, deviation, levels), groups, classes, weights)
            for start in range(0, len(steps), _ROWS)
        ]
        logits = np.concatenate(rows)
        return np.asarray(np.exp(logits - logsumexp(logits, axis=1, keepdims=True)))

    right = answers(leaked)[np.arange(len(leaked)), groups]
    return Guess(
        probabilities=answers(target).astype(np.float32),
        training_loss=-float((np.log(np.maximum(right, 1e-12)) * weights).mean()),
        how=f"{len(leaked):,} leaked pictures, exact noise",
    )


def by_group(
    likelihoods: Floats,
    groups: npt.NDArray[np.int64],
    classes: int,
    weights: npt.NDArray[np.floating] | None = None,
) -> Floats:
    """``log p(payload | group)``, ``(M, classes)``: the weighted mean over the group's pictures; all alike without."""
    logs = np.zeros(len(groups)) if weights is None else np.log(np.asarray(weights, np.float64))
    columns = []
    for group in range(classes):
        own = groups == group
        columns.append(
            logsumexp(likelihoods[:, own] + logs[own], axis=1) - logsumexp(logs[own])
            if own.any()
            else np.full(len(likelihoods), -np.inf)
        )
    return np.stack(columns, axis=1)


def log_likelihoods(steps: npt.NDArray[np.integer], values: Floats, deviation: float, levels: int) -> Floats:
    """``log p(payload | picture)`` of each payload under each picture, exactly as the wire rounds and saturates.

    Args:
        steps: Payloads, whole numbers 0..levels - 1, ``(M, D)``.
        values: What pictures give before noise, in 0..1, ``(N, D)``.
        deviation: Of the noise, on the scale of 0..1.
        levels: ``2^bits``.

    Returns:
        float64 ``(M, N)``.
    """
    edges = (np.arange(1, levels) - 0.5) / (levels - 1)
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    total = np.zeros((len(steps), len(values)))
    for column in range(values.shape[1]):
        upper = log_ndtr((bounds[1:, None] - values[None, :, column]) / deviation)
        lower = log_ndtr((bounds[:-1, None] - values[None, :, column]) / deviation)
        bins = upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-12)))  # log(Φ(b) - Φ(a)), (levels, N)
        total += bins[steps[:, column]]
    return total
