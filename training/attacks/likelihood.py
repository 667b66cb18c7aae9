"""The attacker who knows graph, noise and leaked pictures: how likely is this payload, picture by picture?"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp

from ..payloads import Payloads
from .base import Guess, hold_out_indices

__all__ = [
    "likelihood",
    "likelihood_of_frames",
    "log_likelihoods",
    "log_likelihoods_of_frames",
]

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

    def answers(payloads: Payloads, known: Payloads, before: Floats) -> Floats:
        steps = payloads.features.reshape(len(payloads), -1).astype(np.int64)
        return _answers(
            steps, partial(log_likelihoods, values=before, deviation=deviation, levels=levels), known, classes
        )

    def loss(payloads: Payloads, known: Payloads, before: Floats) -> float:
        right = answers(payloads, known, before)[np.arange(len(payloads)), payloads.labels]
        return -float((np.log(np.maximum(right, 1e-12)) * payloads.weights()).mean())

    some, held = hold_out_indices(len(leaked), 0, classes)
    return Guess(
        probabilities=answers(target, leaked, values).astype(np.float32),
        training_loss=loss(leaked, leaked, values),
        held_out_loss=loss(leaked[held], leaked[some], values[some]),
        how=f"{len(leaked):,} leaked pictures, exact noise",
    )


def likelihood_of_frames(
    leaked: Payloads, values: Floats, seen: npt.NDArray[np.integer], deviation: float, classes: int
) -> Guess:
    """As :func:`likelihood`, for who sees many frames of each picture: their likelihoods multiply.

    Args:
        leaked: Labels of the leaked pictures.
        values: What they give before noise, in 0..1, ``(N, D)``.
        seen: How often each value took each level among the frames of M pictures, ``(M, D, levels)``.
        deviation: Of the noise, on the scale of 0..1.
        classes: Number of groups.
    """
    answers = _answers(seen, partial(log_likelihoods_of_frames, values=values, deviation=deviation), leaked, classes)
    return Guess(
        probabilities=answers.astype(np.float32),
        training_loss=math.nan,
        how=f"{len(leaked):,} leaked pictures, exact noise",
    )


def _answers(
    received: npt.NDArray[np.integer],
    likelihoods: Callable[[npt.NDArray[np.integer]], Floats],
    leaked: Payloads,
    classes: int,
) -> Floats:
    """Return what each group's probability is, groups counting alike, ``(M, classes)``, some rows at a time."""
    weights = leaked.weights()
    rows = [
        _by_group(likelihoods(received[start : start + _ROWS]), leaked.labels, classes, weights)
        for start in range(0, len(received), _ROWS)
    ]
    logits = np.concatenate(rows)
    return np.asarray(np.exp(logits - logsumexp(logits, axis=1, keepdims=True)))


def _by_group(
    likelihoods: Floats,
    groups: npt.NDArray[np.int64],
    classes: int,
    weights: npt.NDArray[np.floating],
) -> Floats:
    """``log p(payload | group)``, ``(M, classes)``: the weighted mean over the group's pictures."""
    logs = np.log(np.asarray(weights, np.float64))
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
    total = np.zeros((len(steps), len(values)))
    for column in range(values.shape[1]):
        total += _log_bins(values[:, column], deviation, levels)[steps[:, column]]
    return total


def log_likelihoods_of_frames(seen: npt.NDArray[np.integer], values: Floats, deviation: float) -> Floats:
    """As :func:`log_likelihoods`, of many payloads of one picture together: ``seen (M, D, levels)`` counts them."""
    total = np.zeros((len(seen), len(values)))
    for column in range(values.shape[1]):
        total += seen[:, column].astype(np.float64) @ _log_bins(values[:, column], deviation, seen.shape[2])
    return total


def _log_bins(values: Floats, deviation: float, levels: int) -> Floats:
    """``log p(level | value)``, ``(levels, N)``."""
    edges = (np.arange(1, levels) - 0.5) / (levels - 1)
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    low, high = ((edge[:, None] - values[None]) / deviation for edge in (bounds[:-1], bounds[1:]))
    # log(Φ(b) - Φ(a)). Above the value both are next to 1, and the same below it is not: -b and -a lie as far apart.
    above = low > 0
    low, high = np.where(above, -high, low), np.where(above, -low, high)
    upper, lower = log_ndtr(high), log_ndtr(low)
    return np.asarray(upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-12))))
