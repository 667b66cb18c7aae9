"""Packing loses nothing, whatever the number of values, and the attacker's unpacking is the head's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcp_sdk.contract import Packing
from export.fused import pack, quantise, unpack


@given(st.sampled_from([1, 2, 4]), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_packing_is_undone_on_both_sides(bits: int, kept: int, side: int, seed: int) -> None:
    shape = (kept, side, side)
    steps = np.random.default_rng(seed).integers(0, 2**bits, (5, *shape))
    packed = pack(torch.from_numpy(steps).float(), bits)
    packing = Packing(bits=bits, shape=shape)
    assert packed.dtype == torch.uint8
    assert packed.shape == (5, packing.nbytes)
    assert np.array_equal(unpack(packed, bits, shape).numpy(), steps)
    assert np.array_equal(packing.unpack(packed.numpy()), steps)


def test_whole_bytes_stay_where_they_are() -> None:
    steps = torch.arange(24.0).view(2, 3, 2, 2)
    packed = pack(steps, 8)
    assert packed.shape == steps.shape
    assert torch.equal(unpack(packed, 8, (3, 2, 2)), steps)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_quantising_saturates_at_both_ends(bits: int) -> None:
    top = 2**bits - 1
    values = torch.tensor([-1.0, 0.0, 0.45, 1.0, 2.0])
    assert quantise(values, 1 / top, bits).tolist() == [0, 0, round(0.45 * top), top, top]
