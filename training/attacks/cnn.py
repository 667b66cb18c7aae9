"""A small CNN whose batch normalisation starts at the input: strong on heavy-tailed values once they are ranked."""

from __future__ import annotations

from torch import nn

from .base import AttackSettings
from .neural import neural

__all__ = ["cnn"]


def _block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    channels, *_ = shape
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        *_block(channels, 64, 1),
        *_block(64, 128, 3),
        nn.MaxPool2d(2, ceil_mode=True),
        *_block(128, 128, 3),
        *_block(128, 128, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(128, settings.classes),
    )


cnn = neural("batch-norm CNN", _network)
