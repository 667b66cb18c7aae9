"""The folder of one training: who may write into it, which checkpoint goes on, and its logs."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import torch
from filelock import FileLock
from lightning_fabric.loggers import CSVLogger, TensorBoardLogger  # type: ignore[attr-defined, unused-ignore]
from torch import Tensor

from dcp_sdk.errors import ConfigError

from .checkpoint import Checkpoint, restore, restore_optimizer
from .config import Recipe
from .console import console
from .data import Splits
from .networks import SplitModel

__all__ = ["CHECKPOINT_FILE", "alone", "open_logs", "resume"]

CHECKPOINT_FILE = "checkpoint.safetensors"


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Make the folder and keep other trainings out of it; the operating system forgets that when this process ends.

    Raises:
        ConfigError: Another training is in it, or it cannot be written to.
    """
    lock = FileLock(out / "training.lock")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ConfigError(f"another training writes to {out} now. Wait for it, or choose another folder.") from error
    except OSError as error:
        raise ConfigError(f"expected a folder for the run that can be written to, got {out}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def resume(
    recipe: Recipe,
    splits: Splits,
    out: Path,
    model: SplitModel,
    optimizer: torch.optim.Optimizer,
) -> Checkpoint | None:
    """Go on after the last whole epoch, if there is one.

    Args:
        recipe: What is to be trained.
        splits: What it is to be trained with.
        out: Folder of the run.
        model: Takes the checkpoint's weights.
        optimizer: Takes its state.

    Returns:
        The checkpoint, with this recipe, or None: there is none.

    Raises:
        ConfigError: It is of another recipe, or was trained with other data.
    """
    path = out / CHECKPOINT_FILE
    if not path.exists():
        return None
    checkpoint = Checkpoint.load(path)
    # An audit alone asks for others: they may be corrected afterwards.
    same_others = checkpoint.recipe.model_copy(
        update={"data": checkpoint.recipe.data.model_copy(update={"others": recipe.data.others})}
    )
    if changes := list(_differences(same_others.model_dump(mode="json"), recipe.model_dump(mode="json"))):
        raise ConfigError(
            f"{path} comes from another recipe ({checkpoint.recipe.name}): {'; '.join(changes[:3])}. Choose "
            "another --out folder."
        )
    named = (checkpoint.task, checkpoint.sensitive) == (splits.task, splits.sensitive)
    if not named or checkpoint.data not in ("", splits.fingerprint):
        what = "pictures or labels" if named else "names of classes"
        raise ConfigError(
            f"{path} was trained with other {what} than --data holds now. Choose another --out folder, or put back "
            "what was there."
        )
    restore(model, checkpoint.tensors)
    restore_optimizer(optimizer, checkpoint.tensors)
    console.print(f"resuming after epoch {checkpoint.epoch} of {recipe.optim.epochs}")
    return replace(checkpoint, recipe=recipe)


def open_logs(out: Path, epochs: int) -> list[Any]:
    """Open both logs. The table keeps its first ``epochs`` rows, which a new CSV logger would delete."""
    file = out / "csv" / "metrics.csv"
    rows: list[dict[str, Tensor | float]] = []
    if file.exists():
        with contextlib.suppress(ValueError, TypeError):  # a row that was cut off in the middle
            for written in csv.DictReader(file.read_text(encoding="utf-8", errors="replace").splitlines()):
                rows.append({name: float(value) for name, value in written.items()})
        rows = [row for row in rows if "step" in row]
        file.unlink()
    table = CSVLogger(str(out), name="csv", version="", flush_logs_every_n_steps=1)
    for row in rows[:epochs]:
        table.log_metrics(row, step=int(row.pop("step")))
    return [table, TensorBoardLogger(str(out), name="tensorboard", version="")]


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Name the settings that differ, with both values."""
    for key in sorted(before.keys() | after.keys()):
        one, other = before.get(key), after.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key} was {one!r}, is {other!r}"
