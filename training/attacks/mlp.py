"""A multi-layer perceptron on every value of the unpacked payload."""

from __future__ import annotations

import math

from torch import nn

from .base import AttackSettings
from .neural import neural

__all__ = ["mlp"]

_HIDDEN = 256


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), _HIDDEN),
        nn.BatchNorm1d(_HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(_HIDDEN, _HIDDEN),
        nn.BatchNorm1d(_HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(_HIDDEN, settings.classes),
    )


mlp = neural("MLP", _network)
