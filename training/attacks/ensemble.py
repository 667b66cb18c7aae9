"""All adversaries together: the mean of their answers is often better than the best of them, and costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Guess

__all__ = ["ENSEMBLE", "together"]

ENSEMBLE = "all together"
"""The name that reports use."""


def together(guesses: Sequence[Guess]) -> Guess | None:
    """Average the probabilities; None where there are fewer than two.

    Args:
        guesses: For the same payloads, of adversaries that work on them.
    """
    if len(guesses) < 2:
        return None
    held_out = [guess.held_out_loss for guess in guesses if guess.held_out_loss is not None]
    return Guess(
        probabilities=np.mean([guess.probabilities for guess in guesses], axis=0),
        training_loss=float(np.mean([guess.training_loss for guess in guesses])),
        held_out_loss=float(np.mean(held_out)) if held_out else None,  # at most: the loss is convex
        how=f"mean of {len(guesses)}",
        minutes=sum(guess.minutes for guess in guesses),
    )
