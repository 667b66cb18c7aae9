"""FBS: Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression", ICLR 2019.

A small layer predicts each channel's saliency g from the picture; the k highest stay (k-winners-take-all) and are
*multiplied* by it; the sum of all g is a lasso penalty (section 3). Made to save computation, not to hide anything: it
keeps what matters most for the answer.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from .. import defense_config
from ..networks import Float32, SaliencyPruner, SplitModel
from .base import Batch, Defense, Losses

__all__ = ["FeatureBoosting"]


class _Boost(nn.Module):
    def forward(self, activations: Tensor, scores: Tensor) -> Tensor:
        return activations * scores[:, :, None, None]


class FeatureBoosting(Defense):
    """Feature boosting and suppression.

    OURS: one gate, at the split, that reads the split's own output (the paper gates every layer from the one before).
    """

    def build(self) -> SplitModel:
        model = super().build()
        return replace(model, pruner=Float32(SaliencyPruner(model.activations_shape[0])), transform=_Boost())

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        del progress
        settings = self.settings(defense_config.FeatureBoosting)
        sent = self.send(model, batch.pictures)
        assert sent.scores is not None
        assert sent.mask is not None
        # Gradient reaches the saliencies through the boost alone, as in the paper, so the mask's own is cut.
        winners = sent._replace(payload=sent.transformed * sent.mask.detach())
        return Losses(self.task_loss(model, winners, batch), settings.sparsity * sent.scores.sum(1).mean())
