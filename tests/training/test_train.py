from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from typer.testing import CliRunner

from dcp_sdk.errors import ConfigError
from tests.tiny import ROOT
from training.checkpoint import Checkpoint
from training.config import OptimConfig, Recipe
from training.defenses import Batch, Defense
from training.defenses.base import Losses
from training.generated import draw_pictures
from training.networks import SplitModel
from training.run_folder import CHECKPOINT_FILE
from training.schedule import learning_rate
from training.train import app, train

SMALL = ["data.generated_pictures=64", "optim.batch_size=32", "optim.epochs=2", "optim.schedule=constant"]


def small(*overrides: str) -> Recipe:
    return Recipe.load(Path("generated"), [*SMALL, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [[], ["pruning.pruner=paper"], ["pruning.rule=random"], ["pruning.rule=none", "pruning.ratio=0"]],
    ids=["dynamic", "dynamic, paper's pruner", "random", "none"],
)
def test_every_rule_trains_from_the_same_loop(overrides: list[str], tmp_path: Path) -> None:
    checkpoint = train(small(*overrides), None, tmp_path)
    assert Checkpoint.load(tmp_path / CHECKPOINT_FILE).metrics == checkpoint.metrics
    assert checkpoint.quantisation_scale > 0
    assert (tmp_path / "csv" / "metrics.csv").read_text().count("\n") == 3
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_resumed_run_is_bit_equal_to_one_that_was_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(small(), None, tmp_path / "whole")

    class PowerCut(Exception):
        pass

    save = Checkpoint.save

    def save_and_die(self: Checkpoint, path: Path) -> None:
        save(self, path)
        raise PowerCut

    with monkeypatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(Checkpoint, "save", save_and_die)
        train(small(), None, tmp_path / "cut")
    assert Checkpoint.load(tmp_path / "cut" / CHECKPOINT_FILE).epoch == 1
    resumed = train(small(), None, tmp_path / "cut")
    assert resumed.metrics == whole.metrics
    tables = [(tmp_path / name / "csv" / "metrics.csv").read_text() for name in ("whole", "cut")]
    assert tables[0] == tables[1]
    assert resumed.quantisation_scale == whole.quantisation_scale
    assert resumed.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(resumed.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_a_training_that_diverges_keeps_the_epoch_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = Defense.losses

    def late_nonsense(self: Defense, model: SplitModel, batch: Batch, progress: float) -> Losses:
        found = losses(self, model, batch, progress)
        return found if progress < 0.5 else Losses(found.task * float("nan"))

    monkeypatch.setattr(Defense, "losses", late_nonsense)
    with pytest.raises(ConfigError, match="diverged"):
        train(small("pruning.rule=none", "pruning.ratio=0"), None, tmp_path)
    assert Checkpoint.load(tmp_path / CHECKPOINT_FILE).epoch == 1


def test_it_learns(tmp_path: Path) -> None:
    recipe = Recipe.load(Path("generated"), ["pruning.rule=none", "pruning.ratio=0", "optim.epochs=6"])
    assert train(recipe, None, tmp_path).metrics["val/task_balanced_accuracy"] > 0.8


def test_fairfaces_layout_runs_by_the_recipe_of_the_experiments(tmp_path: Path) -> None:
    """FairFace's own columns and its seven groups, with drawn pictures for faces."""
    races = ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern")
    for split, count in (("train", 56), ("val", 28)):
        (tmp_path / split).mkdir()
        lines = ["file,age,gender,race,service_test"]
        for number, picture in enumerate(draw_pictures(count, 40, seed=count)[0]):
            assert cv2.imwrite(str(tmp_path / split / f"{number}.jpg"), picture)
            lines.append(f"{split}/{number}.jpg,20-29,{('Male', 'Female')[number % 2]},{races[number % 7]},True")
        (tmp_path / f"fairface_label_{split}.csv").write_text("\n".join(lines) + "\n")
    short = ["optim.epochs=1", "optim.batch_size=16", "pruning.rule=dynamic", "pruning.ratio=0.9"]
    checkpoint = train(Recipe.load("utkface_gender_64", short), tmp_path, tmp_path / "run")
    assert checkpoint.task.labels == ("Female", "Male")
    assert checkpoint.sensitive.labels == tuple(sorted(races))


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_learning_rate_is_positive_and_never_above_its_peak(schedule: str) -> None:
    optim = OptimConfig.model_validate({"epochs": 3, "learning_rate": 0.5, "schedule": schedule})
    rates = [learning_rate(optim, step, 10) for step in range(30)]
    assert max(rates) == 0.5
    assert min(rates) > 0
    assert schedule == "constant" or (rates[0] < 0.5 and rates[-1] < 0.01)


def test_two_processes_leave_one_checkpoint(tmp_path: Path) -> None:
    overrides = [word for override in SMALL for word in ("--set", override)]
    options = ["--recipe", "generated", "--out", str(tmp_path), "--accelerator", "cpu", "--devices", "2", *overrides]
    command = [sys.executable, "-m", "training.train", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert Checkpoint.load(tmp_path / CHECKPOINT_FILE).epoch == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nobody-wrote-it"], "expected a YAML recipe"),
        (["--recipe", "generated", "--set", "optim.epochs=0"], "optim.epochs"),
        (["--recipe", "paper"], "--data DIR"),
        (["--recipe", "generated", "--accelerator", "abacus"], "--accelerator abacus --devices 1"),
        (["--recipe", "generated", "--out", "/dev/null/run"], "expected a folder for the run"),
    ],
)
def test_mistakes_end_with_a_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--out", str(tmp_path), *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "ConfigError" in done.output
    assert message in done.output
