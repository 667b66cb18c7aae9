"""NoPeek: Vepakomma et al., "NoPeek: Information leakage reduction to share activations", ICDMW 2020.

``a1 dCor(x, z) + a2 CE``: the distance correlation between pictures and payloads is a penalty (its equation 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import defense_config
from ..networks import SplitModel
from .base import Batch, Defense, Losses

__all__ = ["NoPeek", "distance_correlation"]

_SMALL = 1e-9


class NoPeek(Defense):
    """OURS: a2 = 1; pictures enter as pixels in 0..1."""

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        del progress
        settings = self.settings(defense_config.NoPeek)
        sent = self.send(model, batch.pictures)
        correlation = distance_correlation(batch.pictures.float() / 255, sent.payload)
        return Losses(self.task_loss(model, sent, batch), settings.weight * correlation)


def distance_correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Distance correlation (Székely et al. 2007) of two samples of the same N things: 0 independent, 1 alike.

    Args:
        ours: ``(N, ...)``.
        theirs: ``(N, ...)``.
    """
    a, b = (_centred_distances(values.flatten(1).float()) for values in (ours, theirs))
    covariance = (a * b).mean().clamp_min(0)
    variances = (a * a).mean() * (b * b).mean()
    return torch.sqrt(covariance / (torch.sqrt(variances) + _SMALL) + _SMALL)


def _centred_distances(values: Tensor) -> Tensor:
    square = (values * values).sum(1)
    squared = square[:, None] + square[None, :] - 2 * values @ values.T
    distances = torch.sqrt(squared.clamp_min(0) + _SMALL)  # the root of 0 has no gradient
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()
