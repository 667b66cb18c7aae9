from __future__ import annotations

import numpy as np

from training.attacks.base import Guess
from training.attacks.ensemble import together
from training.metrics import balanced_accuracy


def guess(truth: np.ndarray, seed: int, loss: float = 0.5) -> Guess:
    """Right more often than not, each seed about other payloads."""
    noise = np.random.default_rng(seed).normal(0, 1, (len(truth), 3))
    scores = np.exp(noise + np.eye(3)[truth])
    return Guess(probabilities=scores / scores.sum(1, keepdims=True), training_loss=loss, how="made up", minutes=1)


def share(guess: Guess, truth: np.ndarray) -> float:
    return balanced_accuracy(guess.probabilities.argmax(1), truth).value


def test_together_they_read_more_than_each_alone() -> None:
    truth = np.arange(900) % 3
    guesses = [guess(truth, seed) for seed in range(6)]
    mean = together(guesses)
    assert mean is not None
    assert share(mean, truth) > max(share(one, truth) for one in guesses) + 0.05
    assert mean.minutes == 6


def test_one_alone_is_no_ensemble() -> None:
    assert together([guess(np.arange(90) % 3, 0)]) is None


def test_a_guess_survives_being_written_down() -> None:
    written = guess(np.arange(9) % 3, 0)
    read = Guess.model_validate_json(written.model_dump_json())
    assert read.probabilities.dtype == np.float32
    assert np.allclose(read.probabilities, written.probabilities)
