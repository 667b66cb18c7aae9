"""Fresh adversaries and reconstructions, one family per file.

Each gets leaked pairs, and answers for payloads that it has never seen.
"""

from .base import Attack, AttackSettings, Guess
from .boosting import boosting
from .channel_vit import channel_vit
from .cnn import cnn
from .decoder import decoder
from .deep_image_prior import deep_image_prior
from .ensemble import ENSEMBLE, together
from .inversion import inversion
from .likelihood import likelihood, likelihood_of_frames
from .likeness import kernel_ridge, mean_of_nearest, nearest
from .linear_probe import linear_probe
from .mlp import mlp
from .reconstruction import Knowledge, Reconstruct, SearchSettings
from .remaining_layers import remaining_layers

__all__ = [
    "ATTACKS",
    "COPIES",
    "ENSEMBLE",
    "RECONSTRUCTIONS",
    "SEARCHES",
    "Attack",
    "AttackSettings",
    "Guess",
    "Knowledge",
    "Reconstruct",
    "SearchSettings",
    "likelihood",
    "likelihood_of_frames",
    "together",
]

ATTACKS: dict[str, Attack] = {
    "linear probe": linear_probe,
    "MLP": mlp,
    "remaining ResNet layers": remaining_layers,
    "batch-norm CNN": cnn,
    "ViT over channels": channel_vit,
    "gradient boosting": boosting,
}
"""Every family, under the name that reports use."""

SEARCHES: dict[str, Reconstruct] = {"inversion": inversion, "deep image prior": deep_image_prior}
"""Attacks that search for one picture at a time, through the weights of the device graph: few are drawn."""

RECONSTRUCTIONS: dict[str, Reconstruct] = {
    "decoder": decoder,
    "kernel ridge": kernel_ridge,
    "mean of the nearest": mean_of_nearest,
    "nearest leaked picture": nearest,
    **SEARCHES,
}
"""Every attack that draws the picture."""

COPIES = frozenset({"kernel ridge", "mean of the nearest", "nearest leaked picture"})
"""Those that put leaked pictures together: what they draw may be a person of the data set, and is shown to nobody."""
