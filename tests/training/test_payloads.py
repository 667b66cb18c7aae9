"""What leaked, where it belongs, and how much each pair of it counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.training.payloads import payloads
from training.payloads import Payloads


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=60))
def test_each_group_counts_alike_and_within_it_each_answer(pairs: list[tuple[int, int]]) -> None:
    labels, answers = (np.array(column) for column in zip(*pairs, strict=True))
    nothing = np.zeros((len(pairs), 1), np.uint8)
    weights = Payloads(nothing, nothing[..., None, None], labels, answers, 1, 1.0).weights()
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-5)
    for group in np.unique(labels):
        ours = labels == group
        np.testing.assert_allclose(weights[ours].sum(), len(pairs) / len(np.unique(labels)), rtol=1e-5)
        sums = [weights[ours & (answers == answer)].sum() for answer in np.unique(answers[ours])]
        np.testing.assert_allclose(sums, np.mean(sums), rtol=1e-5)


def test_dense_puts_each_channel_where_it_belongs() -> None:
    some = payloads(5, 0, tell=True)
    dense = some.dense().numpy()
    assert np.array_equal(dense.any((2, 3)) | (some.mask() > 0), some.mask() > 0)
    for row, ids in enumerate(some.channels):
        assert np.allclose(dense[row, ids], some.features[row] * 0.01)
