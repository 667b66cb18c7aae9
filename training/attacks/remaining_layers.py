"""The paper's adversary, trained afresh: the ResNet layers after the split, on the unpacked payload."""

from __future__ import annotations

from torch import nn

from ..networks import RemainingLayers
from .base import AttackSettings
from .neural import neural

__all__ = ["remaining_layers"]


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    del shape
    return RemainingLayers.of(settings.network, settings.classes)


remaining_layers = neural("remaining ResNet layers", _network)
