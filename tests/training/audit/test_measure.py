"""What an adversary read, whether it learnt at all, and which of its tries counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dcp_sdk.bundles.measurements import Control
from tests.training.payloads import LABELS, SETTINGS, payloads
from training.attacks import Guess
from training.audit.measure import as_control, judge, measure_attack, run_attack, tries
from training.metrics import balanced_accuracy
from training.payloads import Payloads


def control_of(leaked: Payloads, target: Payloads, *, head: float) -> Control:
    """Judge what boosting reads of the task, whose labels these are."""
    return as_control(run_attack("gradient boosting", leaked, target, SETTINGS), target, head)


def test_an_attack_that_stayed_at_the_prior_did_not_train() -> None:
    leaked = payloads(400, 0, tell=True)
    idle = dataclasses.replace(SETTINGS, epochs=1, trees=1)
    silent = dataclasses.replace(leaked, features=np.zeros_like(leaked.features))
    result = measure_attack("gradient boosting", silent, silent, idle, LABELS)
    assert not result.trained
    assert not result.counts


def test_who_reads_the_task_from_the_same_payloads_counts_though_he_learnt_nothing_else() -> None:
    """The control tells *nothing to learn* from *cannot learn*."""
    leaked, target = payloads(400, 0, tell=True), payloads(200, 1, tell=True)
    control = control_of(leaked, target, head=0.95)
    assert control.passed
    silent = dataclasses.replace(leaked, features=np.zeros_like(leaked.features))
    failed = control_of(silent, silent, head=0.95)
    assert not failed.passed
    idle = measure_attack("gradient boosting", silent, silent, dataclasses.replace(SETTINGS, trees=1), LABELS)
    assert not idle.trained
    assert idle.model_copy(update={"control": control}).counts
    assert not idle.model_copy(update={"control": failed}).counts


def test_reading_the_task_by_luck_is_no_control_though_the_head_does_no_better() -> None:
    silent = dataclasses.replace(payloads(400, 0, tell=False), features=np.zeros((400, 4, 4, 4), np.uint8))
    guessing = control_of(silent, silent, head=0.2)
    assert guessing.balanced_accuracy.value >= (1 / 3 + 0.2) / 2, "halfway to a head that is worse than guessing"
    assert not guessing.passed


def test_always_answering_one_of_the_classes_that_occur_is_no_control() -> None:
    """Four classes of the task, of which the tested pictures have two: such an answer is right for half of them."""
    target = payloads(400, 0, tell=False)
    target = dataclasses.replace(target, labels=target.labels % 2)
    constant = Guess(probabilities=np.tile(np.eye(4, dtype=np.float32)[0], (400, 1)), training_loss=1.4, how="")
    assert not as_control(constant, target, head=0.7).passed


def whispering(count: int, seed: int, *, together: float) -> Payloads:
    """Payloads that shout the answer and whisper the attribute; how often the two go together."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    answers = np.where(rng.random(count) < together, labels, 1 - labels)
    values = np.stack([40 * labels, 160 * answers], axis=1) + rng.normal(40, 25, (count, 2))
    channels = np.tile(np.arange(2, dtype=np.uint8), (count, 1))
    features = values.clip(0, 255).astype(np.uint8)[:, :, None, None]
    return Payloads(channels, features, labels, answers, 2, 1 / 255)


@pytest.mark.parametrize("name", ["linear probe", "MLP", "gradient boosting"])
def test_what_goes_together_among_the_leaked_pairs_alone_does_not_distract(name: str) -> None:
    settings = dataclasses.replace(SETTINGS, classes=2, epochs=12)
    target = whispering(1500, 1, together=0.5)

    def read(leaked: Payloads) -> float:
        return measure_attack(name, leaked, target, settings, ("a", "b")).balanced_accuracy.value

    leaked = whispering(1500, 0, together=0.9)
    naive = read(dataclasses.replace(leaked, answers=np.zeros_like(leaked.answers)))
    assert read(leaked) > naive + 0.05
    assert list(tries(leaked, target, settings, [0])) == [("0", leaked, settings)]


def test_what_goes_together_among_the_attacked_pictures_too_is_used() -> None:
    leaked, target = whispering(1500, 0, together=0.9), whispering(1500, 1, together=0.9)
    settings = dataclasses.replace(SETTINGS, classes=2)
    read = {
        key: balanced_accuracy(run_attack("linear probe", pairs, target, how).probabilities.argmax(1), target.labels)
        for key, pairs, how in tries(leaked, target, settings, [0])
    }
    assert read["0, with the answer"].value > read["0"].value + 0.05


def test_who_ranks_best_is_reported_beside_who_answers_best() -> None:
    truth = np.random.default_rng(0).integers(0, 3, 600)
    target = dataclasses.replace(payloads(600, 0, tell=False), labels=truth)
    noise = np.random.default_rng(1).random((600, 3))
    answers = Guess(
        probabilities=np.eye(3)[np.where(noise[:, 0] < 0.2, truth, noise.argmax(1))], training_loss=1, how=""
    )
    ranks = Guess(probabilities=0.1 * noise + 0.1 * np.eye(3)[truth] + [5, 0, 0], training_loss=1, how="")
    result = judge("x", {"0": answers, "1": ranks}, target, target, LABELS)
    assert result.balanced_accuracy.value > 0.4
    assert result.auc is not None
    assert result.auc > 0.9
