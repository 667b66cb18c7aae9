"""What holds against *any* attacker, under assumptions that are named: capacity, differential privacy, information.

Attacks show what can be read; these show how much there is to read. All of it is about one payload of one picture, and
about noise of one known size on values in 0..1 (``network.bottleneck``); without noise only the capacity is stated.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp

__all__ = ["attribute_information", "best_accuracy", "gaussian_epsilon", "log_likelihoods"]

Floats = npt.NDArray[np.float64]


def gaussian_epsilon(sensitivity: float, deviation: float, delta: float) -> float:
    """Return the smallest ε for which Gaussian noise gives (ε, δ)-differential privacy.

    Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8.

    Args:
        sensitivity: Largest Euclidean distance between what two pictures give before noise.
        deviation: Of the noise on each value.
        delta: δ, above 0.

    Returns:
        ε >= 0. It is exact for this mechanism: no smaller one holds.
    """
    ratio = sensitivity / deviation

    def excess(epsilon: float) -> float:
        first = log_ndtr(ratio / 2 - epsilon / ratio)
        second = epsilon + log_ndtr(-ratio / 2 - epsilon / ratio)
        return float(np.exp(first) - np.exp(second)) - delta

    if excess(0.0) <= 0:
        return 0.0
    largest = ratio**2 / 2 + ratio * 40
    return float(brentq(excess, 0.0, largest, xtol=1e-6))


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


def _by_group(likelihoods: Floats, groups: npt.NDArray[np.int64], classes: int) -> Floats:
    """``log p(payload | group)``, ``(M, classes)``: the mean over the group's pictures."""
    return np.stack(
        [
            logsumexp(likelihoods[:, groups == group], axis=1) - math.log(max(1, int((groups == group).sum())))
            for group in range(classes)
        ],
        axis=1,
    )


def best_accuracy(
    likelihoods: Floats, groups: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64], classes: int
) -> float:
    """Balanced accuracy of an attacker who knows the population and the noise, and has unlimited power (Bayes' rule).

    The pictures *are* the population, and the payload's own picture is among them: the estimate lies above the truth
    for pictures that are only like them, the more so the less noise there is.

    Args:
        likelihoods: ``(M, N)``, from :func:`log_likelihoods`.
        groups: Of the N pictures.
        drawn: Group of the picture behind each of the M payloads.
        classes: Number of groups.
    """
    answers = _by_group(likelihoods, groups, classes).argmax(1)
    return float(
        np.mean([(answers[drawn == group] == group).mean() for group in range(classes) if (drawn == group).any()])
    )


def attribute_information(
    likelihoods: Floats, groups: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64], classes: int
) -> tuple[float, float]:
    """Mutual information of payload and group in bits, with its standard error; above the truth as is the accuracy."""
    by_group = _by_group(likelihoods, groups, classes)
    shares = np.bincount(groups, minlength=classes) / len(groups)
    known = shares > 0
    overall = logsumexp(by_group[:, known] + np.log(shares[known]), axis=1)
    gains = (by_group[np.arange(len(drawn)), drawn] - overall) / math.log(2)
    return float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(len(gains)))
