"""All adversaries together: the mean of their answers is often better than the best of them, and costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dcp_sdk.privacy_report import has_trained

from .base import Guess

__all__ = ["ENSEMBLE", "together"]

ENSEMBLE = "all together"
"""The name that reports use."""


def together(guesses: Sequence[Guess], prior_entropy: float) -> Guess | None:
    """Average the probabilities of those that trained; None where fewer than two did.

    Args:
        guesses: For the same payloads.
        prior_entropy: Cross-entropy of the groups' frequencies: who stays there did not train.
    """
    trained = [guess for guess in guesses if has_trained(guess.training_loss, prior_entropy)]
    if len(trained) < 2:
        return None
    return Guess(
        probabilities=np.mean([guess.probabilities for guess in trained], axis=0),
        training_loss=float(np.mean([guess.training_loss for guess in trained])),
        how=f"mean of {len(trained)}",
        minutes=sum(guess.minutes for guess in guesses),
    )
