"""Shredder: Mireshghallah et al., "Learning Noise Distributions to Protect Inference Privacy", ASPLOS 2020.

The network is trained first and then left alone. Noise tensors, drawn from a Laplace distribution, are trained as if
they were weights: ``CE - λ mean|n|`` (its equation 3), large but harmless to the answer. From each, location and scale
of a Laplace distribution are fitted and the *order* of its elements is kept; the device draws fresh noise from the
distribution, puts it in that order and adds it (section 2.5), so that no two pictures get the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from .. import defense_config
from ..networks import SplitModel
from .base import Batch, Defense, Losses, frozen, inner
from .noise import Noise

__all__ = ["LearntNoise", "Shredder"]

_STEP = 30.0
"""Noise moves this much faster than weights would: it starts far from where it ends."""


class LearntNoise(Noise):
    """Noise tensors in training, samples of their distributions afterwards.

    Args:
        shape: ``(C, h, w)`` of the activations.
        tensors: How many are learnt.
        spread: Scale of the Laplace distribution they start from, in deviations of each channel.
    """

    location: Tensor
    scale: Tensor
    ranks: Tensor

    def __init__(self, shape: tuple[int, int, int], tensors: int, spread: float) -> None:
        size = math.prod(shape)
        super().__init__(shape[0], (1 + size,))
        self.shape = shape
        start = torch.distributions.Laplace(0.0, spread).sample((tensors, size))
        self.slow_noise = nn.Parameter(start / _STEP)
        self.register_buffer("location", torch.zeros(tensors))
        self.register_buffer("scale", torch.ones(tensors))
        self.register_buffer("ranks", torch.zeros(tensors, size, dtype=torch.int64))
        self.fit()

    @property
    def noise(self) -> Tensor:
        """The learnt tensors ``(tensors, C h w)``, in deviations of each channel."""
        return self.slow_noise * _STEP

    @torch.no_grad()
    def fit(self) -> None:
        """Fit a Laplace distribution to each tensor, by maximum likelihood, and remember the order of its elements."""
        self.location.copy_(self.noise.median(1).values)
        self.scale.copy_((self.noise - self.location[:, None]).abs().mean(1))
        self.ranks.copy_(self.noise.argsort(1, descending=True).argsort(1))

    def forward(self, activations: Tensor, scores: Tensor | None = None, uniform: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` -> the same with noise, not negative. In training each picture takes the next tensor."""
        del scores
        count = activations.shape[0]
        if self.training:
            drawn = self.noise[torch.arange(count, device=activations.device) % len(self.noise)]
        else:
            drawn = self._sample(self.uniform(uniform, activations))
        noise = drawn.reshape(-1, *self.shape) * self.deviation
        return torch.relu(activations + noise)

    def _sample(self, uniform: Tensor) -> Tensor:
        """One number chooses the tensor, the others are mapped to its distribution (the inverse of Laplace's)."""
        chosen = (uniform[:, 0] * len(self.location)).long()
        centred = uniform[:, 1:].clamp(1e-6, 1 - 1e-6) - 0.5
        laplace = -torch.sign(centred) * torch.log(1 - 2 * centred.abs())
        ordered = torch.topk(laplace, self.ranks.shape[1], dim=1).values.gather(1, self.ranks[chosen])
        return self.location[chosen][:, None] + self.scale[chosen][:, None] * ordered


class Shredder(Defense):
    """Shredder.

    OURS: noise in units of each channel's deviation; several tensors are learnt at once, each on its share of a batch;
    the mean of |n| instead of the sum, so that λ does not depend on the size of the payload.
    """

    @property
    def _settings(self) -> defense_config.Shredder:
        return self.settings(defense_config.Shredder)

    def build(self) -> SplitModel:
        model = super().build()
        noise = LearntNoise(model.activations_shape, self._settings.tensors, self._settings.spread)
        return replace(model, transform=noise)

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        noise = inner(model.transform, LearntNoise)
        if progress < self._settings.pretraining:
            sent = self.send(replace(model, transform=None), batch.pictures)
            with torch.no_grad():
                noise.observe(sent.activations)
            return Losses(self.task_loss(model, sent, batch))
        model.client.eval()  # its running statistics are finished too
        model.head.eval()
        with frozen(model.client, model.head):
            sent = self.send(model, batch.pictures)
            task = self.task_loss(model, sent, batch)
        return Losses(task, -self._settings.weight * noise.noise.abs().mean())

    def after_epoch(self, model: SplitModel) -> None:
        inner(model.transform, LearntNoise).fit()
