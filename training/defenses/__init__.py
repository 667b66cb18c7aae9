"""The paper's method and its rivals, one per file: each a small class over the loop of ``training.train``."""

from __future__ import annotations

from ..config import Recipe
from .base import Batch, Defense, Losses, Sent, send
from .deep_obfuscator import DeepObfuscator
from .dynamic_pruning import DynamicPruning
from .feature_boosting import FeatureBoosting
from .gaussian_noise import GaussianNoise
from .gradual_pruning import GradualPruning
from .latent_pruning import LatentPruning
from .maximum_entropy import MaximumEntropy
from .nopeek import NoPeek
from .osia import Osia
from .shredder import Shredder

__all__ = ["DEFENSES", "Batch", "Defense", "Losses", "Sent", "defense_of", "send"]

DEFENSES: dict[str, type[Defense]] = {
    "none": Defense,
    "random": Defense,
    "dynamic": DynamicPruning,
    "nopeek": NoPeek,
    "shredder": Shredder,
    "deep_obfuscator": DeepObfuscator,
    "osia": Osia,
    "feature_boosting": FeatureBoosting,
    "gradual_pruning": GradualPruning,
    "gaussian_noise": GaussianNoise,
    "maximum_entropy": MaximumEntropy,
    "latent_pruning": LatentPruning,
}
"""By ``defense.name`` of a recipe, or by ``pruning.rule`` where it names no defence."""


def defense_of(recipe: Recipe, task_classes: int, sensitive_classes: int) -> Defense:
    """Return the defence that a recipe asks for."""
    name = recipe.defense.name if recipe.defense else recipe.pruning.rule
    return DEFENSES[name](recipe, task_classes, sensitive_classes)
