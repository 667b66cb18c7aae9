"""What holds against *any* attacker, under assumptions that are named: privacy, information, reconstruction.

Attacks show what can be read; these show how much there is to read. All of it is about one payload of one picture, and
about noise of one known size on values in 0..1 (``network.bottleneck``); without noise only the capacity is stated.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import log_ndtr, logsumexp

__all__ = [
    "attribute_information",
    "best_accuracy",
    "gaussian_epsilon",
    "log_likelihoods",
    "reconstruction_bound",
]

Floats = npt.NDArray[np.float64]
_NULL = 1e-4
"""Share of the largest eigenvalue below which a direction counts as one that the encoder does not react to."""


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


def reconstruction_bound(jacobians: npt.NDArray[np.float32], pictures: npt.NDArray[np.float32]) -> float:
    """Bound the mean squared error of *any* attacker's pictures from below, for an encoder without noise.

    Bayesian Cramér-Rao (van Trees): what an encoder never reacts to can only come from the prior. With U spanning the
    null space of the expected Fisher information ``E[J' J]`` and prior information S, the error is at least
    ``Tr((U' S U)^-1) / d`` (Maeng et al. 2023; Hwang, Li and Maeng). For a Gaussian prior, ``S = Cov^-1``, that is what
    is left of the pictures' variance once everything outside the null space is known *exactly*, which no payload of a
    few values tells; so it is far from tight.

    Args:
        jacobians: Derivatives of values by pixels, at many pictures: ``(P, d)``, all rows together.
        pictures: Samples of the prior, pixels in 0..1, ``(N, d)``, N > 1.

    Returns:
        Mean squared error of a pixel, data range 1.
    """
    known = _row_space(jacobians)
    centred = (pictures - pictures.mean(0)).astype(np.float64) / math.sqrt(len(pictures) - 1)
    total = float(np.square(centred).sum())
    seen = centred @ known  # (N, r): Cov = centred' centred
    inside = seen.T @ seen
    across = centred.T @ seen
    explained = np.linalg.lstsq(inside, across.T @ across, rcond=None)[0]
    return float(max(0.0, total - np.trace(explained)) / pictures.shape[1])


def _row_space(jacobians: npt.NDArray[np.float32]) -> Floats:
    """Orthonormal directions ``(d, r)`` in which the expected Fisher information is not next to nothing."""
    information = (jacobians.astype(np.float64) @ jacobians.T.astype(np.float64)) / len(jacobians)
    strengths, mixtures = np.linalg.eigh(information)
    chosen = strengths > _NULL * strengths[-1]
    directions = jacobians.T.astype(np.float64) @ mixtures[:, chosen]
    return np.asarray(directions / np.linalg.norm(directions, axis=0))
