"""Next to guessing is where audits go wrong: of a leak that is weak, and known, the attacks read about all there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training import payloads
from training.attacks import ATTACKS, likelihood
from training.audit.guarantees import best_attacker
from training.metrics import balanced_accuracy
from training.payloads import Payloads

CLASSES, VALUES, DEVIATION = 5, 4, 0.3
SETTINGS = replace(payloads.SETTINGS, classes=CLASSES, decoder_epochs=1, search_pairs=2500, trees=100)


def leak(count: int, seed: int) -> tuple[np.ndarray, Payloads]:
    """Each group lies a little elsewhere, under noise that is far larger, and the answer is written over all of it."""
    rng = np.random.default_rng(seed)
    labels, answers = rng.integers(0, CLASSES, count), rng.integers(0, 2, count)
    places = np.random.default_rng(0).normal(0.5, 0.06, (CLASSES, VALUES))
    values = np.clip(places[labels] + 0.3 * (answers[:, None] - 0.5) * np.array([1, 1, 0, 0]), 0, 1)
    noisy = np.clip(values + DEVIATION * rng.standard_normal(values.shape), 0, 1)
    channels = np.tile(np.arange(VALUES, dtype=np.uint8), (count, 1))
    features = np.round(255 * noisy).astype(np.uint8)[:, :, None, None]
    return values, Payloads(channels, features, labels, answers, VALUES, 1 / 255)


def read(probabilities: np.ndarray, target: Payloads) -> float:
    return balanced_accuracy(probabilities.argmax(1), target.labels).value


@pytest.fixture(scope="module")
def leaked() -> tuple[np.ndarray, Payloads]:
    return leak(7000, 1)


@pytest.fixture(scope="module")
def target() -> Payloads:
    return leak(20_000, 2)[1]


@pytest.fixture(scope="module")
def possible(leaked: tuple[np.ndarray, Payloads]) -> float:
    best = best_attacker(leaked[0][:2000], leaked[1].labels[:2000], CLASSES, DEVIATION, 256, draws=6).accuracy
    assert 0.23 < best < 0.28, "little more than guessing"
    return best


def test_who_knows_the_noise_reads_all_of_it(
    leaked: tuple[np.ndarray, Payloads], target: Payloads, possible: float
) -> None:
    values, pairs = leaked
    some, few = np.arange(2000), target[np.arange(8000)]
    guess = likelihood(pairs[some], values[some], few, DEVIATION, 256, CLASSES)
    assert read(guess.probabilities, few) == pytest.approx(possible, abs=0.02)


@pytest.mark.parametrize("name", ["linear probe", "MLP", "gradient boosting"])
def test_who_only_has_pairs_reads_most_of_it(
    name: str, leaked: tuple[np.ndarray, Payloads], target: Payloads, possible: float
) -> None:
    found = read(ATTACKS[name](leaked[1], target, SETTINGS).probabilities, target)
    assert found > 0.2 + 0.5 * (possible - 0.2)
    assert found < possible + 0.02, "nobody reads what is not there"
