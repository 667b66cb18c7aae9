"""What every attack is given and gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..config import NetworkConfig

__all__ = ["AttackSettings", "Guess"]


@dataclass(frozen=True)
class AttackSettings:
    """What an attacker decides, and knows beside the payloads."""

    network: NetworkConfig
    """Architecture and split of the attacked bundle: public."""
    classes: int
    """Number of sensitive classes."""
    seed: int
    epochs: int
    """Passes over the leaked pairs, for those that learn by gradient."""
    trees: int
    """Rounds of boosting."""


@dataclass(frozen=True)
class Guess:
    """An adversary's answers."""

    probabilities: npt.NDArray[np.float32]
    """For the target payloads, ``(N, classes)``."""
    training_loss: float
    """Its cross-entropy on the leaked pairs that it was trained on, in nats."""
