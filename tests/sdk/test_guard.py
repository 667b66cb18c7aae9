from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dcp_sdk import PrivacyGuardError
from dcp_sdk.contract import Packing, TensorSpec
from dcp_sdk.guard import check_payload
from tests import tiny as graph

CONTRACT = graph.contract("0" * 64, "1" * 64)
MAX_BATCH = CONTRACT.head.max_batch_size
FEATURES = (graph.KEPT, graph.SIDE, graph.SIDE)

Pair = tuple[np.ndarray, np.ndarray]
batches = st.integers(1, MAX_BATCH)


@st.composite
def channels(draw: st.DrawFn, batch: int) -> np.ndarray:
    """Any ids that the contract allows."""
    row = st.lists(st.integers(0, graph.CHANNELS - 1), min_size=graph.KEPT, max_size=graph.KEPT, unique=True)
    return np.array([sorted(draw(row)) for _ in range(batch)], np.uint8)


@st.composite
def payloads(draw: st.DrawFn) -> Pair:
    """Any payload that the contract allows."""
    batch = draw(batches)
    return draw(channels(batch)), draw(hnp.arrays(np.uint8, (batch, *FEATURES)))


@given(payloads())
def test_what_the_contract_allows_passes_as_an_owned_copy(payload: Pair) -> None:
    views = [np.asfortranarray(tensor) for tensor in payload]
    for tensor, checked in zip(views, check_payload(CONTRACT, views), strict=True):
        np.testing.assert_array_equal(checked, tensor)
        assert checked.flags.c_contiguous
        assert checked.flags.owndata
        assert checked.base is None
        assert not np.shares_memory(checked, tensor)


@given(batches.flatmap(lambda n: hnp.arrays(np.uint8, (n, graph.KEPT))))
def test_only_ascending_ids_that_exist_pass(ids: np.ndarray) -> None:
    features = np.zeros((len(ids), *FEATURES), np.uint8)
    allowed = all(list(row) == sorted(set(row)) and max(row) < graph.CHANNELS for row in ids.tolist())
    if allowed:
        check_payload(CONTRACT, (ids, features))
    else:
        with pytest.raises(PrivacyGuardError, match="channels"):
            check_payload(CONTRACT, (ids, features))


@given(
    st.sampled_from([np.uint8, np.int8, np.uint16, np.int64, np.float16, np.float32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=9),
)
def test_no_other_type_or_shape_passes(dtype: type, shape: tuple[int, ...]) -> None:
    ids = np.arange(graph.KEPT, dtype=np.uint8)[None]
    features = np.zeros(shape, dtype)
    if dtype is np.uint8 and shape == (1, *FEATURES):
        return
    with pytest.raises(PrivacyGuardError):
        check_payload(CONTRACT, (ids, features))


CHANGES: dict[str, Callable[[Pair], object]] = {
    "nothing at all": lambda p: (),
    "one tensor less": lambda p: p[:1],
    "one tensor more": lambda p: (*p, p[1]),
    "the other order": lambda p: p[::-1],
    "batches differ": lambda p: (p[0], p[1][:1]),
    "empty batch": lambda p: (p[0][:0], p[1][:0]),
    "batch too large": lambda p: tuple(np.repeat(t, MAX_BATCH, axis=0) for t in p),
    "no batch": lambda p: (p[0][0], p[1][0]),
    "dense activations": lambda p: (p[0], np.zeros((2, graph.CHANNELS, graph.SIDE, graph.SIDE), np.uint8)),
    "float features": lambda p: (p[0], p[1].astype(np.float32)),
    "list": lambda p: (p[0].tolist(), p[1]),
    "bytes": lambda p: (p[0], p[1].tobytes()),
    "None": lambda p: (None, None),
    "masked array": lambda p: (p[0], np.ma.masked_array(p[1], mask=p[1] > 3)),
    "object array": lambda p: (p[0], p[1].astype(object)),
    "record array": lambda p: (p[0], p[1].view(np.dtype([("value", np.uint8)]))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_anything_else_is_refused(change: Callable[[Pair], object]) -> None:
    good = tuple(graph.payload(2).values())
    check_payload(CONTRACT, good)
    with pytest.raises(PrivacyGuardError, match="Nothing was sent"):
        check_payload(CONTRACT, change((good[0], good[1])))  # type: ignore[arg-type]


def test_messages_hold_no_values() -> None:
    ids, features = graph.payload(1).values()
    ids[0, -1] = 173
    with pytest.raises(PrivacyGuardError) as caught:
        check_payload(CONTRACT, (ids, features))
    assert "173" not in str(caught.value)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_bits_that_belong_to_no_value_are_no_way_out(bits: Literal[1, 2, 4]) -> None:
    """Five values leave bits of the last byte over: no attack would look there, and a server could."""
    packing = Packing(bits=bits, shape=(5, 1, 1))
    features = TensorSpec(name="features", dtype="uint8", shape=(packing.nbytes,), layout="B", low=0, high=255)
    contract = CONTRACT.model_copy(update={"packing": packing, "payload": (CONTRACT.payload[0], features)})
    ids = graph.payload(1)["channels"]
    for last in range(256):
        packed = np.full((1, packing.nbytes), 255, np.uint8)
        packed[0, -1] = last
        if last < 1 << (5 * bits - 8 * (packing.nbytes - 1)):
            check_payload(contract, (ids, packed))
        else:
            with pytest.raises(PrivacyGuardError, match="bits that belong to no value"):
                check_payload(contract, (ids, packed))
