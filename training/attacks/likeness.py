"""Reconstruction without a network: what do the leaked pictures show whose payloads are alike?

Nothing here can fail to train, and two of the three draw what makes the squared error smallest: an estimate of the mean
picture behind the payload. That is the error which the certificate bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from sklearn.kernel_ridge import KernelRidge
from sklearn.neighbors import NearestNeighbors

from ..payloads import Payloads
from .base import hold_out_indices
from .reconstruction import Knowledge, Pictures
from .scaling import Scaling, standardised

__all__ = ["kernel_ridge", "mean_of_nearest", "nearest"]

Values = npt.NDArray[np.float32]

_NEIGHBOURS = (1, 4, 16, 64, 256)
_WIDTHS = (0.1, 1.0, 10.0)
"""Of the kernel, against the mean squared distance of two payloads."""
_PENALTIES = (0.01, 0.1, 1.0, 10.0)
_PAIRS = 4000
"""Leaked pairs that kernel ridge solves for at most: its time grows with their cube."""
_CHOOSERS = 256
"""Held-out leaked pairs on which settings are compared at most."""
_COARSE = 4
"""They are compared on every fourth pixel of every fourth line."""


def nearest(knowledge: Knowledge, target: Payloads) -> Pictures:
    """Draw the leaked picture whose payload is the most alike: always a real one, if seldom the right one.

    Args:
        knowledge: The leaked pairs are used.
        target: M payloads never seen.

    Returns:
        uint8 ``(M, S, S, 3)``.
    """
    scale = standardised(knowledge.leaked)
    return knowledge.pictures[_neighbours(scale, knowledge.leaked, target, 1)[:, 0]]


def mean_of_nearest(knowledge: Knowledge, target: Payloads) -> Pictures:
    """Draw the mean of the leaked pictures whose payloads are the most alike; held-out pairs choose of how many.

    Args:
        knowledge: The leaked pairs and ``settings.seed`` are used.
        target: M payloads never seen.

    Returns:
        uint8 ``(M, S, S, 3)``.
    """
    leaked, pictures = knowledge.leaked, knowledge.pictures
    learned, chooser = _held_out(knowledge)
    scale = standardised(leaked[learned])
    counts = [count for count in _NEIGHBOURS if count <= len(learned)]
    found = _neighbours(scale, leaked[learned], leaked[chooser], counts[-1])
    small, truth = _coarse(pictures[learned]), _coarse(pictures[chooser])
    count = min(counts, key=lambda count: _error(_means(small, found[:, :count]), truth))
    return _as_pictures(_means(pictures[learned], _neighbours(scale, leaked[learned], target, count)))


def kernel_ridge(knowledge: Knowledge, target: Payloads) -> Pictures:
    """Draw by ridge regression with a Gaussian kernel, from payload to pixels; held-out pairs choose width and penalty.

    Args:
        knowledge: The leaked pairs and ``settings.seed`` are used.
        target: M payloads never seen.

    Returns:
        uint8 ``(M, S, S, 3)``.
    """
    leaked, pictures = knowledge.leaked, knowledge.pictures
    learned, chooser = _held_out(knowledge)
    learned = learned[:_PAIRS]
    scale = standardised(leaked[learned])
    known = _columns(scale, leaked[learned])
    # Two payloads lie twice their variance apart on average.
    spread = max(2 * float(known.var(axis=0, dtype=np.float64).sum()), 1e-12)

    def solve(those: Pictures, choice: tuple[float, float]) -> Callable[[Payloads], Iterable[Values]]:
        width, penalty = choice
        mean = those.mean(axis=0, dtype=np.float32)
        model = KernelRidge(kernel="rbf", gamma=1 / (width * spread), alpha=penalty)
        model.fit(known, (those - mean).reshape(len(those), -1))
        return lambda payloads: (
            model.predict(_columns(scale, batch)).reshape(-1, *mean.shape) + mean for batch in payloads.batches(256)
        )

    truth = _coarse(pictures[chooser])
    choices = [(width, penalty) for width in _WIDTHS for penalty in _PENALTIES]
    best = min(choices, key=lambda choice: _error(solve(_coarse(pictures[learned]), choice)(leaked[chooser]), truth))
    return _as_pictures(solve(pictures[learned], best)(target))


def _held_out(knowledge: Knowledge) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    settings = knowledge.settings
    learned, chooser = hold_out_indices(len(knowledge.leaked), settings.seed, settings.classes)
    return learned, chooser[:_CHOOSERS]


def _columns(scale: Scaling, payloads: Payloads) -> Values:
    """One row per payload, each channel on its own scale, ``(N, C h w)``."""
    return scale(payloads).dense().flatten(1).numpy()


def _neighbours(scale: Scaling, known: Payloads, target: Payloads, count: int) -> npt.NDArray[np.int64]:
    """Numbers of the ``count`` known payloads that are nearest to each target, the nearest first."""
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(_columns(scale, known))
    return np.concatenate(
        [search.kneighbors(_columns(scale, batch), return_distance=False) for batch in target.batches(256)]
    )


def _means(pictures: Pictures, found: npt.NDArray[np.int64]) -> Iterable[Values]:
    return (pictures[row].mean(axis=0, dtype=np.float32)[None] for row in found)


def _coarse(pictures: Pictures) -> Pictures:
    return pictures[:, ::_COARSE, ::_COARSE]


def _error(drawn: Iterable[Values], truth: Pictures) -> float:
    return float(np.square(np.concatenate(list(drawn)) - truth).mean())


def _as_pictures(drawn: Iterable[Values]) -> Pictures:
    """Values on the scale 0..255, some pictures at a time."""
    return np.concatenate([some.clip(0, 255).round().astype(np.uint8) for some in drawn])
