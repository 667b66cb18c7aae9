"""The field's plainest yardstick: Gaussian noise on what is sent, while training and on the wire."""

from __future__ import annotations

from dataclasses import replace

from .. import defense_config
from ..networks import SplitModel
from .base import Defense
from .noise import GaussianNoiseLayer

__all__ = ["GaussianNoise"]


class GaussianNoise(Defense):
    """Noise in units of each channel's running deviation; drawn inside the device graph."""

    def build(self) -> SplitModel:
        settings = self.settings(defense_config.GaussianNoise)
        model = super().build()
        return replace(model, transform=GaussianNoiseLayer(model.activations_shape, settings.deviation))
