"""What any attacker undoes for free, an increasing map of a channel's values, is undone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.benchmarks.monotone_maps import MAPS, disguised
from tests.training.payloads import LABELS, SETTINGS, payloads
from training.attacks.scaling import SCALINGS, ranked
from training.audit.measure import measure_attack


@pytest.mark.parametrize("name", [name for name in MAPS if name != "identity"])
def test_ranks_do_not_change_under_a_monotone_map(name: str) -> None:
    """An attacker undoes any increasing map of a channel's values for free: the map must not look like protection."""
    leaked, target = payloads(300, 0, tell=True), payloads(50, 1, tell=True)
    plain, mapped = ranked(leaked)(target), ranked(disguised(leaked, name))(disguised(target, name))
    assert np.allclose(plain.features, mapped.features, atol=2e-3)
    assert np.ptp(plain.features) > 0.9


@pytest.mark.parametrize("name", SCALINGS)
def test_what_was_pruned_stays_zero(name: str) -> None:
    leaked = payloads(300, 0, tell=True)
    scaled = SCALINGS[name](leaked)(leaked)
    pruned = scaled.dense().numpy()[leaked.mask() == 0]
    assert not pruned.any()
    assert np.isfinite(scaled.values()).all()


def test_payloads_that_no_network_can_train_on_are_the_priors() -> None:
    """Values beyond float16 after every scaling but the rank: the attack survives, and the rank still reads them."""
    leaked, target = payloads(400, 0, tell=True), payloads(200, 1, tell=True)
    heavy = [dataclasses.replace(some, features=np.exp(30 * some.values()), scale=1.0) for some in (leaked, target)]
    thorough = dataclasses.replace(SETTINGS, search_epochs=3, search_pairs=600)
    result = measure_attack("batch-norm CNN", heavy[0], heavy[1], thorough, LABELS)
    assert result.how.startswith("rank-transformed")
    assert result.balanced_accuracy.low > 0.5
