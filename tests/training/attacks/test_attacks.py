"""Each adversary reads what is there, and nothing where nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.training.payloads import LABELS, SETTINGS, payloads
from training.attacks import ATTACKS
from training.audit.measure import measure_attack


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_reads_what_is_there(name: str) -> None:
    leaked, target = payloads(400, 0, tell=True), payloads(200, 1, tell=True)
    result = measure_attack(name, leaked, target, SETTINGS, LABELS)
    assert result.balanced_accuracy.low > 0.5
    assert result.trained


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_reads_nothing_where_nothing_is(name: str) -> None:
    result = measure_attack(name, payloads(400, 0, tell=False), payloads(300, 1, tell=False), SETTINGS, LABELS)
    assert result.balanced_accuracy.low < 1 / 3 + 0.05
    assert not result.trained, "knowing pairs by heart is no learning"


def test_fewer_channels_than_the_split_has_are_attacked_by_the_remaining_layers_too() -> None:
    """As a defence sends them that projects: 4 of 4 instead of some of 128."""
    leaked, target = (
        dataclasses.replace(some, channels=np.tile(np.arange(4, dtype=np.uint8), (len(some), 1)), total_channels=4)
        for some in (payloads(400, 0, tell=True), payloads(100, 1, tell=True))
    )
    brief = dataclasses.replace(SETTINGS, epochs=2)
    assert measure_attack("remaining ResNet layers", leaked, target, brief, LABELS).balanced_accuracy.low > 1 / 3


def test_boosting_learns_from_as_few_pairs_as_there_are() -> None:
    few, target = payloads(40, 0, tell=True), payloads(300, 1, tell=True)
    assert measure_attack("gradient boosting", few, target, SETTINGS, LABELS).balanced_accuracy.low > 1 / 3
    fewest = measure_attack("gradient boosting", payloads(14, 0, tell=True), target, SETTINGS, LABELS)
    assert 0 <= fewest.balanced_accuracy.value <= 1, "too few to stop early by: it runs all the same"
