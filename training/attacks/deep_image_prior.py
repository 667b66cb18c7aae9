"""Prior-based reconstruction: the picture is the output of an untrained convolutional network.

Ulyanov, Vedaldi & Lempitsky, "Deep Image Prior", CVPR 2018: the weights of a small U-Net are searched for instead of
pixels, its input is fixed noise. Its architecture alone prefers natural pictures; it needs no leaked pair.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from ..payloads import Payloads
from .device_twin import DeviceTwin
from .matching import PayloadMatch
from .neural import conv_block
from .reconstruction import Knowledge, Pictures, as_pictures

__all__ = ["deep_image_prior"]

_LEARNING_RATE = 0.01
_INPUTS = 16
_WIDTHS = (32, 48, 64, 64)
"""Channels from the full side downwards; each level halves it."""
_SKIP = 4


def deep_image_prior(knowledge: Knowledge, target: Payloads) -> Pictures:
    """Search for the weights that draw the picture behind each payload of ``target``, one after the other.

    Args:
        knowledge: ``search.prior_steps`` and ``settings.seed`` are used.
        target: M payloads never seen.

    Returns:
        uint8 ``(M, S, S, 3)``.
    """
    twin = DeviceTwin(knowledge.bundle, knowledge.contract, through_limits=True)
    drawn = [
        _search(knowledge, PayloadMatch(twin, knowledge.contract, one))
        for one in track(list(target.batches(1)), "deep image prior", transient=True)
    ]
    return np.concatenate(drawn)


def _search(knowledge: Knowledge, match: PayloadMatch) -> Pictures:
    size_px, steps = knowledge.contract.preprocessing.size_px, knowledge.search.prior_steps
    torch.manual_seed(knowledge.settings.seed)
    network = _Generator().to(memory_format=torch.channels_last)
    noise = torch.rand(1, _INPUTS, size_px, size_px) / 10
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    which = torch.zeros(1, dtype=torch.int64)
    best, picture = math.inf, torch.zeros(1, 3, size_px, size_px)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        with torch.autocast("cpu", torch.bfloat16):
            drawn = network(noise).float()
        distance = match(drawn, which).sum()
        if distance.item() < best:
            best, picture = distance.item(), drawn.detach()
        optimizer.zero_grad()
        distance.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return as_pictures(picture)


class _Generator(nn.Module):
    """A U-Net from ``(1, inputs, S, S)`` to ``(1, 3, S, S)`` in 0..1; each level halves the side, with a thin skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.skip, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = _INPUTS
        for width in _WIDTHS:
            half = [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
            self.skip.append(nn.Sequential(*conv_block(before, _SKIP, 1)))
            self.down.append(nn.Sequential(*half, *conv_block(width, width, 3)))
            before = width
        for width in reversed(_WIDTHS):
            self.up.append(nn.Sequential(*conv_block(before + _SKIP, width, 3), *conv_block(width, width, 1)))
            before = width
        self.colour = nn.Conv2d(before, 3, 1)

    def forward(self, value: Tensor) -> Tensor:
        skips = []
        for down, skip in zip(self.down, self.skip, strict=True):
            skips.append(skip(value))
            value = down(value)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            value = up(torch.cat([F.interpolate(value, size=skip.shape[-2:], mode="bilinear"), skip], dim=1))
        return torch.sigmoid(self.colour(value))
