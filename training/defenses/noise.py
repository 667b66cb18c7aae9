"""What is added to activations before they leave, and how they are rounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..networks import Randomised

__all__ = ["GaussianNoiseLayer", "Noise", "NoisyRounding", "Rounding", "gaussian"]

_MOMENTUM = 0.05


class Noise(Randomised):
    """Noise in standard deviations of each channel, running over pictures and positions: no network can outgrow it.

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


class Rounding(nn.Module):
    """Values in 0..1 to the nearest of ``2^bits`` levels, with the gradient of the identity.

    Args:
        bits: Of a value on the wire.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.steps = 2**bits - 1

    def forward(self, activations: Tensor, scores: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` -> the same, in whole steps."""
        del scores
        kept = torch.clamp(activations, 0, 1)
        rounded: Tensor = kept + (torch.round(kept * self.steps) / self.steps - kept).detach()
        return rounded


class NoisyRounding(Randomised):
    """Gaussian noise of one fixed size on values in 0..1, then :class:`Rounding`.

    Args:
        shape: ``(C, h, w)`` of the activations.
        deviation: Of the noise, on the scale of 0..1.
        bits: Of a value on the wire.
    """

    def __init__(self, shape: tuple[int, int, int], deviation: float, bits: int) -> None:
        super().__init__((2, *shape))
        self.deviation = deviation
        self.rounding = Rounding(bits)

    def forward(self, activations: Tensor, scores: Tensor | None = None, uniform: Tensor | None = None) -> Tensor:
        """``(N, C, h, w)`` -> the same, drawn anew in each call."""
        noisy = activations + self.deviation * gaussian(self.uniform(uniform, activations))
        rounded: Tensor = self.rounding(noisy, scores)
        return rounded


def gaussian(uniform: Tensor) -> Tensor:
    """``(N, 2, …)`` uniform in [0, 1) -> ``(N, …)`` standard normal (Box and Muller 1958).

    ONNX has no inverse of the error function, and its own normal generator is neither seeded by us nor unpredictable.
    """
    return torch.sqrt(-2 * torch.log(1 - uniform[:, 0])) * torch.cos(2 * math.pi * uniform[:, 1])
