"""Noise on activations, measured in standard deviations of each channel so that no network can outgrow it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..networks import Randomised

__all__ = ["GaussianNoiseLayer", "Noise", "gaussian"]

_MOMENTUM = 0.05


class Noise(Randomised):
    """What every noise needs: the running standard deviation of each channel, over pictures and positions.

    Args:
        channels: C.
        uniforms: Shape of the numbers that one picture takes.
    """

    deviation: Tensor

    def __init__(self, channels: int, uniforms: tuple[int, ...]) -> None:
        super().__init__(uniforms)
        self.register_buffer("deviation", torch.ones(1, channels, 1, 1))

    @torch.no_grad()
    def observe(self, activations: Tensor) -> None:
        """Move towards the deviations of this batch, ``(N, C, h, w)``."""
        seen = activations.float().std(dim=(0, 2, 3), keepdim=True)
        self.deviation.lerp_(seen, _MOMENTUM)


class GaussianNoiseLayer(Noise):
    """``ReLU(z + level * deviation * N(0, 1))``: post-ReLU values stay what the unsigned quantiser expects.

    Args:
        shape: ``(C, h, w)`` of the activations.
        level: Standard deviation of the noise, in the channel's own.
    """

    def __init__(self, shape: tuple[int, int, int], level: float) -> None:
        super().__init__(shape[0], (2, *shape))
        self.level = level

    def forward(self, activations: Tensor, scores: Tensor | None = None, uniform: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` -> the same, drawn anew in each call."""
        del scores
        if self.training:
            self.observe(activations)
        return torch.relu(activations + self.level * self.deviation * gaussian(self.uniform(uniform, activations)))


def gaussian(uniform: Tensor) -> Tensor:
    """``(N, 2, …)`` uniform in [0, 1) -> ``(N, …)`` standard normal (Box and Muller 1958).

    ONNX has no inverse of the error function, and its own normal generator is neither seeded by us nor unpredictable.
    """
    return torch.sqrt(-2 * torch.log(1 - uniform[:, 0])) * torch.cos(2 * math.pi * uniform[:, 1])
