"""Fresh adversaries and reconstructions, one family per file.

Each gets leaked pairs, and answers for payloads that it has never seen.
"""

from collections.abc import Callable

from ..payloads import Payloads
from .base import Attack, AttackSettings, Guess
from .boosting import boosting
from .channel_vit import channel_vit
from .cnn import cnn
from .decoder import Pictures, decoder
from .linear_probe import linear_probe
from .mlp import mlp
from .remaining_layers import remaining_layers

__all__ = ["ATTACKS", "RECONSTRUCTIONS", "Attack", "AttackSettings", "Guess"]

ATTACKS: dict[str, Attack] = {
    "linear probe": linear_probe,
    "MLP": mlp,
    "remaining ResNet layers": remaining_layers,
    "batch-norm CNN": cnn,
    "ViT over channels": channel_vit,
    "gradient boosting": boosting,
}
"""Every family, under the name that reports use."""

RECONSTRUCTIONS: dict[str, Callable[[Payloads, Pictures, Payloads, AttackSettings], Pictures]] = {"decoder": decoder}
"""Attacks that draw the picture: ``(leaked, their pictures, target, settings)`` -> pictures."""
