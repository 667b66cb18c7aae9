"""Gradual channel pruning: Aketi et al., "Gradual Channel Pruning while Training using Feature Relevance Scores", 2020.

While the network trains, the channels that matter least for the task are removed, a few at a time, for all pictures
alike. Made to save computation, not to hide anything.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .. import defense_config
from ..networks import Float32, SplitModel, StaticPruner
from .base import Batch, Defense, Losses, inner, send

__all__ = ["GradualPruning"]

_MOMENTUM = 0.02


class GradualPruning(Defense):
    """Gradual channel pruning.

    OURS: relevance is ``|z dCE/dz|``, summed over a channel and averaged over steps (the paper propagates relevance per
    class, layer by layer); channels go linearly with the steps, at the split alone.
    """

    def build(self) -> SplitModel:
        model = super().build()
        return replace(model, pruner=Float32(StaticPruner(model.activations_shape[0])))

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        settings = self.settings(defense_config.GradualPruning)
        channels = model.activations_shape[0]
        left = max(0.0, 1 - progress / settings.done)
        kept = self.kept(model) + round(left * (channels - self.kept(model)))
        sent = send(model, batch.pictures, kept)
        _observe(sent.payload, inner(model.pruner, StaticPruner))
        return Losses(self.task_loss(model, sent, batch))


def _observe(payload: Tensor, pruner: StaticPruner) -> None:
    """Update the relevance when the gradient comes.

    What is pruned is 0, so its relevance sinks and it stays pruned.
    """

    def update(gradient: Tensor) -> None:
        with torch.no_grad():
            relevance = (payload.float() * gradient.float()).abs().sum((2, 3)).mean(0)
            pruner.relevance.lerp_(relevance / relevance.max().clamp_min(1e-30), _MOMENTUM)

    payload.register_hook(update)  # type: ignore[no-untyped-call]
