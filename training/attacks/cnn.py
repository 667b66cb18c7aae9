"""A small CNN whose batch normalisation starts at the input: strong on heavy-tailed values once they are ranked."""

from __future__ import annotations

from torch import nn

from .base import AttackSettings
from .neural import conv_block, neural

__all__ = ["cnn"]


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    channels, *_ = shape
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        *conv_block(channels, 64, 1),
        *conv_block(64, 128, 3),
        nn.MaxPool2d(2, ceil_mode=True),
        *conv_block(128, 128, 3),
        *conv_block(128, 128, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(128, settings.classes),
    )


cnn = neural("batch-norm CNN", _network)
