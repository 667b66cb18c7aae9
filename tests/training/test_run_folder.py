from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from dcp_sdk.errors import ConfigError
from training.checkpoint import Checkpoint
from training.config import Recipe
from training.run_folder import CHECKPOINT_FILE
from training.train import train


def small(*overrides: str) -> Recipe:
    plain = ["pruning.rule=none", "pruning.ratio=0", "data.generated_pictures=64", "optim.batch_size=32"]
    return Recipe.load("generated", [*plain, "optim.epochs=1", *overrides])


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    train(small(), None, tmp_path)
    with pytest.raises(ConfigError, match=r"another recipe .*: seed was 0, is 5\. Choose"):
        train(small("seed=5"), None, tmp_path)


def test_other_data_do_not_resume_and_others_may_be_corrected(tmp_path: Path) -> None:
    """Labels that changed places would go unnoticed: there are as many of them."""
    train(small(), None, tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    before = Checkpoint.load(path)
    others = small("data.others=[{name: tint}]")
    assert train(others, None, tmp_path).recipe == others
    assert Checkpoint.load(path).recipe == others
    for change, message in (
        ({"data": "0" * 64}, "other pictures or labels"),
        ({"task": before.task.model_copy(update={"labels": before.task.labels[::-1]})}, "other names of classes"),
    ):
        replace(before, **change).save(path)
        with pytest.raises(ConfigError, match=message):
            train(small(), None, tmp_path)


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with FileLock(tmp_path / "training.lock"), pytest.raises(ConfigError, match="another training writes to"):
        train(small(), None, tmp_path)
    assert not (tmp_path / CHECKPOINT_FILE).exists()


def test_a_table_that_was_cut_off_does_not_stop_a_resumed_run(tmp_path: Path) -> None:
    recipe = small()
    train(recipe, None, tmp_path)
    table = tmp_path / "csv" / "metrics.csv"
    whole = table.read_text()
    table.write_text(whole + whole.splitlines()[-1][:9])
    train(recipe, None, tmp_path)
    assert table.read_text() == whole
