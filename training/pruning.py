"""The mask: which k channels of this very picture leave the device (section 3 of the paper).

Hard at all times in the forward pass; the soft mask only lends its gradient while training. The exported graph uses
:func:`kept_indices` too, so there is one rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hard_mask", "imbalance", "kept_indices", "soft_mask", "straight_through_mask"]


def kept_indices(scores: Tensor, kept: int) -> Tensor:
    """Return the indices of the ``kept`` highest scores of each picture, ascending.

    Args:
        scores: float32 ``(N, C)``.
        kept: k, 1..C.

    Returns:
        int64 ``(N, k)``; exactly k different ones per picture. Of equal scores the lower channel wins.
    """
    if torch.compiler.is_exporting():  # ONNX's TopK keeps the lower of equals; torch.topk promises nothing
        best = torch.topk(scores, kept, dim=1).indices
        return torch.topk(best, kept, dim=1, largest=False).values
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return torch.sort(order[:, :kept], dim=1).values


def hard_mask(scores: Tensor, kept: int) -> Tensor:
    """Binary mask b, float32 ``(N, C)``, with exactly ``kept`` ones per picture."""
    return torch.zeros_like(scores).scatter(1, kept_indices(scores, kept), 1.0)


def soft_mask(scores: Tensor, kept: int, temperature: float) -> Tensor:
    """``sigmoid((scores - t) / temperature)``, t halfway between the last kept and the first pruned score of the
    picture.

    Returns:
        float32 ``(N, C)`` in 0..1. With ``kept == C`` there is no pruned score and t is the lowest one.
    """
    ranked = torch.sort(scores, dim=1, descending=True).values
    threshold = (ranked[:, kept - 1] + ranked[:, min(kept, scores.shape[1] - 1)]) / 2
    return torch.sigmoid((scores - threshold.detach()[:, None]) / temperature)


def straight_through_mask(scores: Tensor, kept: int, temperature: float) -> Tensor:
    """Hard in value, soft in gradient: ``b + soft - stop_gradient(soft)``.

    ``soft - soft.detach()`` is exactly zero in floating point, so the value stays exactly binary.
    """
    soft = soft_mask(scores, kept, temperature)
    return hard_mask(scores, kept) + (soft - soft.detach())


def imbalance(mask: Tensor) -> Tensor:
    """Squared coefficient of variation of the channels' loads in a batch (Shazeer et al. 2017).

    A pruner that minimises it cannot choose the same channels for every picture.

    Args:
        mask: Of :func:`straight_through_mask`, ``(N, C)``.

    Returns:
        Scalar: 0 where every channel is kept for as many pictures, C / k - 1 where all pictures keep the same k.
    """
    load = mask.mean(0)
    return (load / load.mean() - 1).square().mean()
