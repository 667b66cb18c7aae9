"""DeepObfuscator: Li et al., "Obfuscating Intermediate Representations with Privacy-Preserving Adversarial Learning on
Smartphones", IoTDI 2021.

The client network (their obfuscator) minimises the task's loss and maximises those of two simulated adversaries: one
names the sensitive attribute (cross-entropy), one draws the picture (1 - SSIM), each of which minimises its own.
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from .. import defense_config
from ..networks import SplitModel
from .base import Batch, Defense, Losses, need, reverse_gradient

__all__ = ["DeepObfuscator"]

_ENLARGE = 4
_WIDTH = 48


class DeepObfuscator(Defense):
    """DeepObfuscator.

    OURS: SSIM at one scale, on the picture shrunk to four times the side of the payload; all steps of their alternation
    in one backward pass with reversed gradients; equal weights.
    """

    def build(self) -> SplitModel:
        model = super().build()
        channels = model.activations_shape[0]
        draw = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=_ENLARGE // 2),
            nn.Conv2d(_WIDTH, 3, 3, padding=1),
            nn.Sigmoid(),
        )
        return replace(model, adversary=self.new_adversary(), reconstructor=draw)

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        del progress
        settings = self.settings(defense_config.DeepObfuscator)
        sent = self.send(model, batch.pictures)
        for_adversary = reverse_gradient(sent.payload, settings.attribute_weight)
        named = F.cross_entropy(need(model.adversary, "adversary")(for_adversary), batch.sensitive)
        for_reconstructor = reverse_gradient(sent.payload, settings.reconstruction_weight)
        drawn = need(model.reconstructor, "reconstructor")(for_reconstructor).float()
        small = F.adaptive_avg_pool2d(batch.pictures.float() / 255, drawn.shape[2:])
        alike = ssim(drawn, small, data_range=1.0)
        assert not isinstance(alike, tuple)
        return Losses(self.task_loss(model, sent, batch), named + 1 - alike)
