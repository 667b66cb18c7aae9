"""A linear probe on every value of the unpacked payload: what needs no learning of features at all."""

from __future__ import annotations

import math

from torch import nn

from .base import AttackSettings
from .neural import neural

__all__ = ["linear_probe"]


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), settings.classes))


linear_probe = neural("linear probe", _network)
