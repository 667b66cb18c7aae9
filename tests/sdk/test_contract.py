from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from dcp_sdk import BundleError, Contract, Manifest
from dcp_sdk.bundles.bundle import MANIFEST_FILE
from dcp_sdk.contract import Packing, TensorSpec, kept_channels
from tests import tiny as graph
from tests.tiny import Tiny

CONTRACT = graph.contract("0" * 64, "1" * 64)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all the numbers and texts in a JSON value."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy of a JSON value with another number or text at ``path``."""
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    place[path[-1]] = old + 1 if isinstance(old, int | float) else f"{'f' if old[0] == '0' else '0'}{old[1:]}"
    return copy


PACKED = TensorSpec(name="features", dtype="uint8", shape=(24,), layout="B", low=0, high=255)
NOISY = CONTRACT.model_copy(
    update={
        "noise": TensorSpec(name="noise", dtype="float32", shape=(5,), layout="U", low=0, high=1),
        "payload": (CONTRACT.payload[0], PACKED),
        "packing": Packing(bits=4, shape=(graph.KEPT, graph.SIDE, graph.SIDE)),
    }
)
AS_JSON = NOISY.model_dump(mode="json")


@pytest.mark.parametrize("path", leaves(AS_JSON), ids=lambda path: ".".join(map(str, path)))
def test_every_field_either_changes_the_digest_or_cannot_be_changed(path: tuple[Any, ...]) -> None:
    try:
        other = Contract.model_validate_json(json.dumps(changed(AS_JSON, path)))
    except ValidationError:
        return
    assert other.digest != NOISY.digest


def test_digest_survives_the_file() -> None:
    assert Contract.model_validate_json(CONTRACT.model_dump_json()).digest == CONTRACT.digest
    assert len(CONTRACT.digest) == 64
    assert CONTRACT.digest != NOISY.digest


def test_payload_is_smaller_than_the_activations() -> None:
    assert CONTRACT.payload_bytes == graph.KEPT * (1 + graph.SIDE**2)
    assert CONTRACT.dense_bytes == 4 * graph.CHANNELS * graph.SIDE**2


@given(st.integers(1, 4096), st.floats(0, 1, exclude_max=True))
def test_kept_channels_stay_in_bounds(channels: int, ratio: float) -> None:
    kept = kept_channels(channels, ratio)
    assert 1 <= kept <= channels
    assert abs(kept - (1 - ratio) * channels) <= 1


FLOATS = TensorSpec(name="x", dtype="float32", shape=(2,), layout="C", low=-1, high=1)


@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32)))
def test_violation_finds_every_value_out_of_range(value: np.ndarray) -> None:
    allowed = all(-1 <= item <= 1 for item in value.ravel().tolist())  # false for NaN
    assert (FLOATS.violation(value) is None) == allowed


def edit(tiny: Tiny, **changes: Any) -> Path:
    path = tiny.bundle / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tiny.bundle


def test_manifest_survives_the_file(tiny: Tiny) -> None:
    assert Manifest.load(tiny.bundle) == tiny.manifest


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a bundle .* got nothing"):
        Manifest.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"expected a bundle with manifest\.json"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"text"', "[" * 100_000, "1" * 5000], ids=range(7))
def test_manifest_that_is_none(text: str, broken: Tiny) -> None:
    (broken.bundle / MANIFEST_FILE).write_text(text)
    with pytest.raises(BundleError):
        Manifest.load(broken.bundle)


def test_manifest_that_is_not_even_text(broken: Tiny) -> None:
    (broken.bundle / MANIFEST_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="UnicodeDecodeError"):
        Manifest.load(broken.bundle)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_manifest_of_another_schema_version(version: object, broken: Tiny) -> None:
    with pytest.raises(BundleError, match="schema version"):
        Manifest.load(edit(broken, schema_version=version))


def test_manifest_that_says_more_than_it_may(broken: Tiny) -> None:
    with pytest.raises(BundleError, match="extra"):
        Manifest.load(edit(broken, extra=1))
