"""The paper's adversary, trained afresh: the ResNet layers after the split, on the unpacked payload."""

from __future__ import annotations

from torch import nn

from ..networks import RemainingLayers
from .base import AttackSettings
from .neural import conv_block, neural

__all__ = ["remaining_layers"]


def _network(shape: tuple[int, int, int], settings: AttackSettings) -> nn.Module:
    layers = RemainingLayers.of(settings.network, settings.classes)
    if shape[0] == layers.inputs:
        return layers
    # A defence that sends fewer channels than the split has (Osia et al.): learn to spread them, as its own head does.
    return nn.Sequential(*conv_block(shape[0], layers.inputs, 1), layers)


remaining_layers = neural("remaining ResNet layers", _network)
