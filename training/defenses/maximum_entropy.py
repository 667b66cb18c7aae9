"""MaxEnt-ARL: Roy and Boddeti, "Mitigating Information Leakage in Image Representations", CVPR 2019, equations 4 to 6.

The adversary minimises its cross-entropy; the client network minimises the task's and maximises the *entropy* of the
adversary's answer, which unlike a maximised cross-entropy has an optimum: the answer that says nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch.nn.functional as F

from .. import defense_config
from ..networks import SplitModel
from .base import Batch, Defense, Losses, frozen, need

__all__ = ["MaximumEntropy"]


class MaximumEntropy(Defense):
    """OURS, where the paper leaves it open: one adversary step per client step, from one backward pass."""

    def build(self) -> SplitModel:
        return replace(super().build(), adversary=self.new_adversary())

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        del progress
        settings = self.settings(defense_config.MaximumEntropy)
        adversary = need(model.adversary, "adversary")
        sent = self.send(model, batch.pictures)
        learning = F.cross_entropy(adversary(sent.payload.detach()), batch.sensitive)
        with frozen(adversary):
            answer = adversary(sent.payload).float().log_softmax(1)
        entropy = -(answer.exp() * answer).sum(1).mean()
        hiding = settings.weight * (math.log(self.sensitive_classes) - entropy)
        return Losses(self.task_loss(model, sent, batch), learning + hiding)
