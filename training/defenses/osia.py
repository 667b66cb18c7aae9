"""Osia et al., "A Hybrid Deep Learning Architecture for Privacy-Preserving Mobile Analytics", IEEE IoT Journal 2020.

The device sends features of few dimensions with noise on them; Siamese fine-tuning (Hadsell et al. 2006) draws features
of pictures with the same *task* class together, whatever else tells them apart, and the others past a margin.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import defense_config
from ..networks import SplitModel
from .base import Batch, Defense, Losses
from .noise import GaussianNoiseLayer

__all__ = ["Osia", "contrastive_loss"]


class Osia(Defense):
    """Osia et al.

    OURS: the projection is a learnt 1x1 convolution followed by ReLU, with its inverse learnt on the server (the paper
    projects on principal components afterwards, whose signs an unsigned wire cannot carry); noise from the start.
    """

    @property
    def _settings(self) -> defense_config.Osia:
        return self.settings(defense_config.Osia)

    def build(self) -> SplitModel:
        model = super().build()
        (channels, height, width), dimensions = model.activations_shape, self._settings.dimensions
        shape = (dimensions, height, width)
        project = nn.Sequential(nn.Conv2d(channels, dimensions, 1, bias=False), nn.BatchNorm2d(dimensions), nn.ReLU())
        expand = nn.Sequential(nn.Conv2d(dimensions, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        return replace(
            model,
            client=nn.Sequential(model.client, *project),
            head=nn.Sequential(*expand, model.head),
            transform=GaussianNoiseLayer(shape, self._settings.noise),
            activations_shape=shape,
        )

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        sent = self.send(model, batch.pictures)
        task = self.task_loss(model, sent, batch)
        if progress < self._settings.pretraining:
            return Losses(task)
        pull = contrastive_loss(sent.activations, batch.task, self._settings.margin)
        return Losses(task, self._settings.contrastive_weight * pull)


def contrastive_loss(features: Tensor, task: Tensor, margin: float) -> Tensor:
    """``d²`` for pairs of one class, ``max(0, margin - d)²`` for the others, over all pairs of a batch.

    Args:
        features: ``(N, ...)``; compared at length 1.
        task: int64 ``(N,)``.
        margin: Of the distance d, at most 2.
    """
    unit = F.normalize(features.flatten(1).float(), dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
    squared = (2 - 2 * (unit[first] * unit[second]).sum(1)).clamp_min(0)
    apart = torch.relu(margin - torch.sqrt(squared + 1e-9)) ** 2
    return torch.where(task[first] == task[second], squared, apart).mean()
