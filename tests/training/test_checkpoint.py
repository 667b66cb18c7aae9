from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from dcp_sdk.contract import Attribute
from dcp_sdk.errors import ConfigError
from training.checkpoint import Checkpoint, weights_of
from training.config import Recipe
from training.defenses import defense_of


@pytest.fixture
def checkpoint() -> Checkpoint:
    recipe = Recipe.load(Path("generated"))
    return Checkpoint(
        recipe=recipe,
        task=Attribute(name="shape", labels=("disc", "cross")),
        sensitive=Attribute(name="tint", labels=("blue", "green", "red")),
        epoch=3,
        quantisation_scale=0.25,
        commit="unknown",
        hours=0.5,
        metrics={"val/task_balanced_accuracy": 0.75},
        tensors=weights_of(defense_of(recipe, 2, 3).build()),
    )


def test_round_trip(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c.safetensors")
    loaded = Checkpoint.load(tmp_path / "c.safetensors")
    assert {**vars(loaded), "tensors": None} == {**vars(checkpoint), "tensors": None}
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())
    weights = weights_of(loaded.model())
    assert all(torch.equal(weights[name], tensor) for name, tensor in checkpoint.tensors.items())


def test_a_full_disk_is_told_in_a_sentence(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """What was written before stays whole."""
    path = tmp_path / "c.safetensors"
    checkpoint.save(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ConfigError, match="Make room"):
            checkpoint.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Checkpoint.load(path).epoch == 3


@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:1000], lambda raw: b"PK" + raw])
def test_what_is_no_checkpoint_is_refused(checkpoint: Checkpoint, damage: object, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ConfigError, match="expected a checkpoint"):
        Checkpoint.load(path)
    with pytest.raises(ConfigError, match="expected a checkpoint"):
        Checkpoint.load(tmp_path / "missing")
