"""The paper: who minimises what (section 3), and which gradients flow where.

With z = g(θ2; x), mask b = top-k(pruner(z)), task label y, sensitive label s::

    task head       min  CE(head(z b), y)
    client network  min  CE(head(z b), y)                                   no adversary gradient, ever
    adversary       min  CE(adversary(z b), s)
    pruner          min  CE(head(z b), y) - weight CE(adversary(z b), s)

All four come out of ONE backward pass over the sum of both cross-entropies, because of two cuts:

* pruner and adversary read ``z.detach()``, so the client network sees the task loss alone;
* between mask and adversary the gradient is reversed, so what the adversary minimises the pruner maximises.

``pruning.balance``, which the paper does not have, adds the imbalance of the mask to what the pruner minimises.
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F

from ..networks import SplitModel
from .base import Batch, Defense, Losses, need, reverse_gradient

__all__ = ["DynamicPruning"]


class DynamicPruning(Defense):
    """Dynamic channel pruning for privacy."""

    def build(self) -> SplitModel:
        model = super().build()
        return replace(model, pruner=self.new_pruner(model.activations_shape[0]), adversary=self.new_adversary())

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        del progress
        sent = self.send(model, batch.pictures)
        assert sent.mask is not None
        mask = reverse_gradient(sent.mask, self.recipe.pruning.adversary_weight)
        answer = need(model.adversary, "adversary")(sent.activations.detach() * mask)
        learning = F.cross_entropy(answer, batch.sensitive)
        return Losses(self.task_loss(model, sent, batch), learning + self.balance(sent))
