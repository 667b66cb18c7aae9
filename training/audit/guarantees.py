"""What holds against *any* attacker, under assumptions that are named: privacy, information, reconstruction.

Attacks show what can be read; these show how much there is to read. All of it is about one payload of one picture, and
about noise of one known size on values in 0..1 (``network.bottleneck``); without noise only the capacity is stated, and
what follows from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import log_ndtr

from ..attacks.likelihood import log_likelihoods

__all__ = [
    "BestAttacker",
    "best_attacker",
    "effective_pictures",
    "gaussian_epsilon",
    "rate_distortion_bound",
    "reconstruction_bound",
]

Floats = npt.NDArray[np.float64]
_ROWS = 1024
"""Derivatives at a time, of more than fit into memory twice."""
_ORDERS = 100
"""Shuffles of the groups: what the best attacker reads where nothing tells."""


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


@dataclass(frozen=True)
class BestAttacker:
    """What Bayes' rule reads of a population that it knows picture by picture."""

    accuracy: float
    """Balanced, expected over the noise."""
    information_bits: float
    """Mutual information of payload and group."""
    information_error: float
    """Standard error of that, from the number of draws."""
    shuffled_accuracy: float
    """As :attr:`accuracy`, where the groups are shuffled: what knowing the population by heart is worth alone. Mean
    over the orders."""
    shuffled_bits: float
    """As :attr:`information_bits`, where the groups are shuffled."""
    most_shuffled_accuracy: float
    """As :attr:`shuffled_accuracy`, which 97.5 % of the orders do not exceed."""
    most_shuffled_bits: float
    """As :attr:`shuffled_bits`, which 97.5 % of the orders do not exceed."""


def best_attacker(
    values: Floats,
    groups: npt.NDArray[np.int64],
    classes: int,
    deviation: float,
    levels: int,
    *,
    draws: int = 20,
) -> BestAttacker:
    """Let an attacker of unlimited power, who knows every picture of the population and the noise, see one payload.

    The pictures *are* the population, and payloads are drawn from these very pictures: on them nobody does better in
    expectation. For pictures that are only like them this is an estimate, in either direction.

    Args:
        values: What the pictures give before noise, in 0..1, ``(N, D)``.
        groups: Of the N pictures.
        classes: Number of groups.
        deviation: Of the noise, on the scale of 0..1.
        levels: Steps of the quantiser.
        draws: Payloads of each picture, over which the results are averaged.
    """
    rng = np.random.default_rng(0)
    labelled = [groups, *(rng.permutation(groups) for _ in range(_ORDERS))]
    results = np.empty((draws, len(labelled), 2))
    for draw in range(draws):
        noisy = np.clip(values + deviation * rng.standard_normal(values.shape), 0, 1)
        logs = log_likelihoods(np.round(noisy * (levels - 1)).astype(np.int64), values, deviation, levels)
        likelihoods = np.exp(logs - logs.max(1, keepdims=True))
        results[draw] = [_bayes(likelihoods, each, classes) for each in labelled]
    (accuracy, bits), *shuffled = results.mean(0)
    (by_heart, told), (most, most_told) = np.mean(shuffled, 0), np.quantile(shuffled, 0.975, axis=0)
    error = float(np.std(results[:, 0, 1], ddof=1) / math.sqrt(draws))
    return BestAttacker(*map(float, (accuracy, bits, error, by_heart, told, most, most_told)))


def _bayes(likelihoods: Floats, groups: npt.NDArray[np.int64], classes: int) -> tuple[float, float]:
    """Balanced accuracy of Bayes' rule, and the bits that its answers tell: of a payload of each picture, which is at
    least as likely to come from another as the smallest float, ``(N, N)``, each row to a scale of its own.
    """
    member = groups[:, None] == np.flatnonzero(np.bincount(groups, minlength=classes))
    shares = member.mean(0)
    scores = likelihoods @ member / member.sum(0)
    right = scores[member]
    accuracy = np.mean([(scores[own].argmax(1) == number).mean() for number, own in enumerate(member.T)])
    return float(accuracy), float(np.log2(right / (scores @ shares)).mean())


def reconstruction_bound(
    jacobians: npt.NDArray[np.float32],
    pictures: npt.NDArray[np.float32],
    deviation: float,
    *,
    count: int | None = None,
) -> float:
    """Bound the mean squared error of *any* attacker's pictures from below.

    Bayesian Cramér-Rao (van Trees): with the expected Fisher information J of a payload and the prior's S, the error is
    at least ``Tr((J + S)^-1) / d``; for a Gaussian prior ``S = Cov^-1``. ``J = E[G' G] / deviation^2`` of the
    derivatives G, and rounding only takes from that. The trace is convex in J, so that few pictures overstate it on
    average. And of all priors with one covariance the Gaussian gives the largest bound.

    Without noise J is infinite wherever the encoder reacts, and only its null space U would count:
    ``Tr((U' S U)^-1) / d`` (Maeng et al. 2023; Hwang, Li and Maeng). Where the encoder is not linear that falls with
    every picture at which derivatives are taken, down to nothing: no bound. See :func:`rate_distortion_bound`.

    Args:
        jacobians: Derivatives of V values by pixels, at P pictures: ``(P, V, d)``.
        pictures: Samples of the prior, pixels in 0..1, ``(N, d)``, N > 1.
        deviation: Of the noise on each value, on the values' scale, above 0.
        count: Pictures at which derivatives were taken, where those without any were left out.

    Returns:
        Mean squared error of a pixel, data range 1.
    """
    centred = (pictures - pictures.mean(0)).astype(np.float64) / math.sqrt(len(pictures) - 1)
    total = float(np.square(centred).sum())
    rows = jacobians.reshape(-1, jacobians.shape[2])
    if not len(rows):
        return float(total / pictures.shape[1])
    weight = deviation * math.sqrt(count or len(jacobians))
    if len(rows) > len(pictures):  # the same by the smaller of two systems: tr (I + seen seen')^-1 centred centred'
        within = np.eye(len(pictures))
        for start in range(0, len(rows), _ROWS):
            seen = centred @ (rows[start : start + _ROWS].T / weight)
            within += seen @ seen.T
        return float(np.trace(np.linalg.solve(within, centred @ centred.T)) / pictures.shape[1])
    known = rows.T.astype(np.float64) / weight
    seen = centred @ known  # (N, r): Cov = centred' centred
    inside = seen.T @ seen + np.eye(known.shape[1])  # Woodbury
    across = centred.T @ seen
    explained = np.linalg.lstsq(inside, across.T @ across, rcond=None)[0]
    return float(max(0.0, total - np.trace(explained)) / pictures.shape[1])


def effective_pictures(jacobians: npt.NDArray[np.float32]) -> float:
    """Return how many pictures would carry as much of J if each counted alike (Kish 1965), at most P.

    Where values are cut to a range, most pictures lie at its ends and show no derivative at all.

    Args:
        jacobians: As for :func:`reconstruction_bound`.
    """
    weights = np.square(jacobians, dtype=np.float64).sum((1, 2))
    return float(weights.sum() ** 2 / max(np.square(weights).sum(), np.finfo(np.float64).tiny))


def rate_distortion_bound(pictures: npt.NDArray[np.float32], bits: int) -> float:
    """Bound the mean squared error of *any* attacker's pictures from below, by how many bits a payload has at all.

    No code of that many bits tells a Gaussian source better (Shannon; Cover and Thomas, theorem 13.3.3: reverse
    water-filling over the covariance's eigenvalues). It holds for every encoder, with noise or without. Few samples of
    the prior understate it.

    Args:
        pictures: Samples of the prior, pixels in 0..1, ``(N, d)``, N > 1.
        bits: Of one payload.

    Returns:
        Mean squared error of a pixel, data range 1.
    """
    centred = (pictures - pictures.mean(0)).astype(np.float64) / math.sqrt(len(pictures) - 1)
    wide = len(pictures) < pictures.shape[1]  # both products have the same eigenvalues, but for zeros
    variances = np.linalg.eigvalsh(centred @ centred.T if wide else centred.T @ centred)[::-1]
    variances = variances[variances > variances[0] * 1e-12]
    logs = np.cumsum(np.log2(variances))
    counts = np.arange(1, len(variances) + 1)
    levels = 2 ** ((logs - 2 * bits) / counts)  # of the water, if so many directions are told
    told = int((levels <= variances).sum())  # a direction is told if the water stands below its variance
    left = variances[told:].sum() + told * (levels[told - 1] if told else 0.0)
    return float(left / pictures.shape[1])
