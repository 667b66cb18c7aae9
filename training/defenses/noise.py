"""Noise on activations, measured in standard deviations of each channel so that no network can outgrow it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GaussianNoiseLayer", "Noise"]

_MOMENTUM = 0.05


class Noise(nn.Module):
    """What every noise needs: the running standard deviation of each channel, over pictures and positions."""

    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("deviation", torch.ones(1, channels, 1, 1))

    @torch.no_grad()
    def observe(self, activations: Tensor) -> None:
        """Move towards the deviations of this batch, ``(N, C, h, w)``."""
        seen = activations.float().std(dim=(0, 2, 3), keepdim=True)
        self.deviation.lerp_(seen, _MOMENTUM)


class GaussianNoiseLayer(Noise):
    """``ReLU(z + level * deviation * N(0, 1))``: post-ReLU values stay what the unsigned quantiser expects.

    Args:
        channels: C.
        level: Standard deviation of the noise, in the channel's own.
    """

    def __init__(self, channels: int, level: float) -> None:
        super().__init__(channels)
        self.level = level

    def forward(self, activations: Tensor, scores: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` -> the same, drawn anew in each call."""
        del scores
        if self.training:
            self.observe(activations)
        return torch.relu(activations + self.level * self.deviation * torch.randn_like(activations))
