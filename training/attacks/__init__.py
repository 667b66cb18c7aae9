"""Fresh adversaries, one family per file. Each gets leaked pairs, and answers for payloads that it has never seen."""

from .base import Attack, AttackSettings, Guess
from .boosting import boosting
from .channel_vit import channel_vit
from .cnn import cnn
from .linear_probe import linear_probe
from .mlp import mlp
from .remaining_layers import remaining_layers

__all__ = ["ATTACKS", "Attack", "AttackSettings", "Guess"]

ATTACKS: dict[str, Attack] = {
    "linear probe": linear_probe,
    "MLP": mlp,
    "remaining ResNet layers": remaining_layers,
    "batch-norm CNN": cnn,
    "ViT over channels": channel_vit,
    "gradient boosting": boosting,
}
"""Every family, under the name that reports use."""
