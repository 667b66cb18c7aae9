"""What guessers read by luck, against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest

from training.attacks import Guess
from training.audit.measure import judge
from training.audit.permutation_test import permutation_test
from training.metrics import balanced_accuracy, macro_auc
from training.payloads import Payloads

NAMES = ("a", "b", "c", "d", "e")
TRUTH = np.random.default_rng(0).integers(0, 5, 1700)


def guesser(seed: int) -> Guess:
    scores = np.random.default_rng(seed).random((len(TRUTH), 5)).astype(np.float32)
    return Guess(probabilities=scores / scores.sum(1, keepdims=True), training_loss=1.6, how="")


def payloads(labels: np.ndarray) -> Payloads:
    values = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return Payloads(values[:, :, 0, 0], values, labels, np.zeros_like(labels), 1, 1.0)


def test_the_best_of_many_independent_guessers_is_lucky() -> None:
    luck = permutation_test([[guesser(seed)] for seed in range(1, 19)], TRUTH, NAMES, shuffles=400)
    assert luck is not None
    expected = np.random.default_rng(0).binomial(len(TRUTH), 0.2, (4000, 18)) / len(TRUTH)
    assert luck.balanced_accuracy.value == pytest.approx(expected.max(1).mean(), abs=0.002)
    assert luck.balanced_accuracy.high == pytest.approx(np.quantile(expected.max(1), 0.975), abs=0.004)
    assert luck.auc is not None
    assert 0.505 < luck.auc.value < luck.auc.high < 0.53


def test_one_guesser_many_times_is_no_luckier_than_once() -> None:
    twice, often = (permutation_test([[guesser(1)] * count], TRUTH, NAMES, shuffles=200) for count in (2, 20))
    assert twice == often
    assert twice is not None
    assert twice.auc is not None
    assert twice.balanced_accuracy.value == pytest.approx(0.2, abs=0.003)
    assert twice.auc.value == pytest.approx(0.5, abs=0.003)


def test_areas_are_those_of_the_report() -> None:
    """One order of the labels, and scores with many ties."""
    rough = [
        each.model_copy(update={"probabilities": each.probabilities.round(1)}) for each in (guesser(1), guesser(2))
    ]
    luck = permutation_test([rough], TRUTH, NAMES, shuffles=1)
    shuffled = np.random.default_rng(0).permutation(TRUTH)
    areas = [macro_auc(each.probabilities, shuffled) for each in rough]
    shares = [balanced_accuracy(each.probabilities.argmax(1), shuffled).value for each in rough]
    assert luck is not None
    assert luck.auc is not None
    assert luck.auc.value == pytest.approx(max(area[0] for area in areas if area))
    assert luck.balanced_accuracy.value == pytest.approx(max(shares))


def test_exposures_are_those_of_the_report() -> None:
    """Of each adversary those of its strongest try, for one order of the labels; groups of four sizes."""
    truth = np.repeat(np.arange(4, dtype=np.int64), [700, 500, 400, 100])
    adversaries = [[guesser(1), guesser(2)], [guesser(3)]]
    luck = permutation_test(adversaries, truth, NAMES, shuffles=1)
    shuffled = np.random.default_rng(0).permutation(truth)
    target = payloads(shuffled)
    results = [
        judge("", {str(number): guess for number, guess in enumerate(tries)}, target, target, NAMES)
        for tries in adversaries
    ]
    most = max(exposure.value for result in results for exposure in result.exposures.values())
    assert luck is not None
    assert luck.exposure is not None
    assert luck.exposure.value == pytest.approx(most)


def test_a_small_group_excuses_no_large_one() -> None:
    """What luck exposes of each group goes with how few pictures it has; no more than one order in forty is beyond."""
    truth = np.repeat(np.arange(5, dtype=np.int64), [400, 400, 400, 400, 30])
    adversaries = [
        [Guess(probabilities=each.probabilities[: len(truth)], training_loss=1.6, how="")]
        for each in map(guesser, range(1, 9))
    ]
    luck = permutation_test(adversaries, truth, NAMES, shuffles=400)
    assert luck is not None
    assert luck.exposure is not None
    assert set(luck.exposures) == set(NAMES)
    assert max(luck.exposures[name] for name in "abcd") < luck.exposures["e"] / 2
    beyond = 0
    for seed in range(100, 200):
        order = np.random.default_rng(seed).permutation(truth)
        results = [judge("", {"0": tries[0]}, payloads(order), payloads(order), NAMES) for tries in adversaries]
        beyond += any(
            exposure.value > luck.exposures[name] for one in results for name, exposure in one.exposures.items()
        )
    assert beyond <= 8


def test_who_knows_is_beyond_luck() -> None:
    known = Guess(probabilities=np.eye(5, dtype=np.float32)[TRUTH], training_loss=0, how="")
    luck = permutation_test([[known], [guesser(1)]], TRUTH, NAMES, shuffles=200)
    assert luck is not None
    assert luck.balanced_accuracy.high < 0.25
    assert permutation_test([[known]], TRUTH, NAMES) is None
    assert permutation_test([[known, known]], np.zeros_like(TRUTH), NAMES) is None
    few = np.where(np.arange(1700) < 5, 1, 0)
    unranked = permutation_test([[guesser(1)], [guesser(2)]], few, NAMES, shuffles=5)
    assert unranked is not None
    assert unranked.auc is None, "of five pictures nobody knows how well they are ranked"
