"""Who minimises what (section 3 of the paper), and which gradients flow where.

With z = g(θ2; x), mask b = top-k(pruner(z)), task label y, sensitive label s::

    task head       min  CE(head(z b), y)
    client network  min  CE(head(z b), y)                                   no adversary gradient, ever
    adversary       min  CE(adversary(z b), s)
    pruner          min  CE(head(z b), y) - weight CE(adversary(z b), s)

All four come out of ONE backward pass over the sum of both cross-entropies, because of two cuts:

* pruner and adversary read ``z.detach()``, so the client network sees the task loss alone;
* between mask and adversary the gradient is reversed, so what the adversary minimises the pruner maximises.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import SplitModel
from .pruning import straight_through_mask

__all__ = ["Losses", "mask_of", "minmax_losses", "reverse_gradient"]


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reverse_gradient(value: Tensor, weight: float) -> Tensor:
    """Identity forward; backward the gradient times ``-weight`` (Ganin and Lempitsky 2015)."""
    reversed_value: Tensor = _ReverseGradient.apply(value, weight)
    return reversed_value


def mask_of(pruner: nn.Module | None, activations: Tensor, kept: int, temperature: float) -> Tensor | None:
    """Compute the mask of these activations, float32 ``(N, C, 1, 1)``; None without a pruner."""
    if pruner is None:
        return None
    scores = pruner(activations.detach())
    return straight_through_mask(scores, kept, temperature)[:, :, None, None]


class Losses(NamedTuple):
    """What one batch yields. ``sum`` is what to back-propagate."""

    task: Tensor
    adversary: Tensor | None
    task_logits: Tensor

    @property
    def sum(self) -> Tensor:
        return self.task if self.adversary is None else self.task + self.adversary


def minmax_losses(
    model: SplitModel,
    pictures: Tensor,
    task: Tensor,
    sensitive: Tensor,
    *,
    kept: int,
    temperature: float,
    weight: float,
) -> Losses:
    """Both cross-entropies of a batch, with the gradient routes of this module's docstring.

    Args:
        model: The networks.
        pictures: uint8 ``(N, 3, S, S)``.
        task: Task labels, int64 ``(N,)``.
        sensitive: Sensitive labels, int64 ``(N,)``.
        kept: k, channels that stay.
        temperature: T of the soft mask.
        weight: How much the pruner listens to the adversary.
    """
    activations = model.client(pictures)
    mask = mask_of(model.pruner, activations, kept, temperature)
    logits = model.head(activations if mask is None else activations * mask)
    adversary_loss = None
    if model.adversary is not None and mask is not None:
        seen_by_server = activations.detach() * reverse_gradient(mask, weight)
        adversary_loss = F.cross_entropy(model.adversary(seen_by_server), sensitive)
    return Losses(F.cross_entropy(logits, task), adversary_loss, logits)
