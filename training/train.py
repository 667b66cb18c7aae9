"""``python -m training.train --recipe RECIPE --data DIR --out RUN``: train one recipe. The loop reads top to bottom."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lightning_fabric import Fabric
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler
from torchmetrics.classification import MulticlassAccuracy

from dcp_sdk.commands.errors import errors_in_words
from dcp_sdk.errors import ConfigError

from . import data
from .checkpoint import Checkpoint, git_commit, optimizer_tensors, weights_of
from .config import Recipe
from .console import console
from .defenses import Batch, Defense, Sent, defense_of
from .networks import SplitModel
from .run_folder import CHECKPOINT_FILE, alone, open_logs, resume
from .schedule import learning_rate

__all__ = ["train"]

_CALIBRATION_PICTURES = 512
_CALIBRATION_PERCENTILE = 99.9

app = typer.Typer(pretty_exceptions_show_locals=False)
Batches = DataLoader[Any]
"""Gives ``(pictures, task labels, sensitive labels)``; torch's types know the single items only."""


def train(recipe: Recipe, folder: Path | None, out: Path, fabric: Fabric | None = None) -> Checkpoint:
    """Train ``recipe`` and leave ``checkpoint.safetensors``, ``csv/metrics.csv`` and TensorBoard's events in ``out``.

    A run that was cut off continues after its last whole epoch and reaches the same result as one that was not, on
    the same hardware: every source of randomness is seeded from recipe and epoch.

    Args:
        recipe: What to train.
        folder: Root of the data set.
        out: Folder of the run; a checkpoint in it is resumed and must come from the same recipe and the same data.
        fabric: Devices and precision; None: one CPU process or GPU, precision from the recipe.

    Raises:
        ConfigError: The data do not fit the recipe, ``out`` cannot be written or holds a run of another recipe or of
            other data, another training writes into it now, or the training diverged; then the last checkpoint stays.
    """
    fabric = fabric or Fabric(devices=1, precision=recipe.precision)
    fabric.launch()
    with alone(out) if fabric.is_global_zero else contextlib.nullcontext():
        return _train(recipe, folder, out, fabric)


def _train(recipe: Recipe, folder: Path | None, out: Path, fabric: Fabric) -> Checkpoint:
    splits = data.load(recipe.data, folder)
    defense = defense_of(recipe, len(splits.task.labels), len(splits.sensitive.labels))
    if fabric.world_size > 1 and recipe.defense is not None:
        raise ConfigError(f"defense {recipe.defense.name!r} trains on one device, got {fabric.world_size}: --devices 1")
    torch.manual_seed(recipe.seed)
    model = defense.build()
    parameters = [p for module in model.networks().values() for p in module.parameters()]
    # Not fused: that kernel reads memory as it lies, and state that is restored lies in another order than the weights.
    bare_optimizer = torch.optim.AdamW(parameters, weight_decay=recipe.optim.weight_decay)
    previous = resume(recipe, splits, out, model, bare_optimizer)
    wrapped, optimizer = _on_devices(fabric, model, bare_optimizer)
    train_batches, val_batches, sampler = _loaders(fabric, recipe, splits)

    commit = git_commit()
    checkpoint = previous
    first_epoch = previous.epoch if previous else 0
    loggers = open_logs(out, first_epoch) if fabric.is_global_zero else []  # one process alone may touch the table
    hours_before = previous.hours if previous else 0.0
    started = time.monotonic()
    for epoch in range(first_epoch, recipe.optim.epochs):
        torch.manual_seed(hash((recipe.seed, epoch, fabric.global_rank)) % 2**63)  # hash of ints is the same everywhere
        sampler.set_epoch(epoch)
        for module in wrapped.networks().values():
            module.train()
        sums = torch.zeros(2)
        shown_batches = track(
            train_batches,
            f"Epoch {epoch + 1}/{recipe.optim.epochs}",
            console=console,
            disable=not console.is_terminal,
        )
        for step, batch in enumerate(shown_batches):
            pictures, task, sensitive = fabric.to_device(batch)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe.optim, epoch * len(train_batches) + step, len(train_batches))
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            progress = (epoch * len(train_batches) + step) / (recipe.optim.epochs * len(train_batches))
            losses = defense.losses(wrapped, Batch(pictures, task, sensitive), progress)
            optimizer.zero_grad()
            fabric.backward(losses.sum)
            optimizer.step()
            sums += torch.stack([losses.task, losses.sum - losses.task]).detach().cpu()
        defense.after_epoch(model)
        _require_numbers(sums, *weights_of(model).values())
        metrics = {
            "train/task_loss": float(sums[0]) / len(train_batches),
            "train/defense_loss": float(sums[1]) / len(train_batches),
            **validate(wrapped, val_batches, defense, splits),
        }
        checkpoint = Checkpoint(
            recipe=recipe,
            task=splits.task,
            sensitive=splits.sensitive,
            epoch=epoch + 1,
            quantisation_scale=calibrate_scale(wrapped, train_batches, defense),
            commit=commit,
            hours=hours_before + (time.monotonic() - started) / 3600,
            metrics=metrics,
            data=splits.fingerprint,
            tensors={**weights_of(model), **optimizer_tensors(bare_optimizer)},
        )
        if fabric.is_global_zero:
            for logger in loggers:  # first: a row too many is dropped when the run is resumed, one too few is lost
                logger.log_metrics(metrics, step=epoch + 1)
            checkpoint.save(out / CHECKPOINT_FILE)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            console.print(f"epoch {epoch + 1}/{recipe.optim.epochs}  {shown}")
        fabric.barrier()
    assert checkpoint is not None  # epochs >= 1
    if fabric.is_global_zero:
        for logger in loggers:
            logger.finalize("success")
        if checkpoint is previous:  # nothing was left to train, but its data.others may have been corrected
            checkpoint.save(out / CHECKPOINT_FILE)
    return checkpoint


def _require_numbers(*tensors: Tensor) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ConfigError(
            "the training diverged: losses or weights are not numbers any more. Lower optim.learning_rate. The "
            "checkpoint of the epoch before is kept."
        )


@torch.no_grad()
def _sent(model: SplitModel, batches: Batches, defense: Defense) -> Iterator[tuple[Sent, Tensor, Tensor]]:
    """Take each batch through the device's networks, in evaluation mode; with both labels."""
    for module in model.networks().values():
        module.eval()
    device = next(model.client.parameters()).device
    for pictures, task, sensitive in ([part.to(device) for part in batch] for batch in batches):
        yield defense.send(model, pictures.contiguous(memory_format=torch.channels_last)), task, sensitive


@torch.no_grad()
def validate(model: SplitModel, batches: Batches, defense: Defense, splits: data.Splits) -> dict[str, float]:
    """Balanced accuracy of the task and of the *co-trained* adversary (which proves nothing), with the hard mask."""
    device = next(model.client.parameters()).device
    task_accuracy, adversary_accuracy = (
        MulticlassAccuracy(len(attribute.labels), average="macro").to(device)
        for attribute in (splits.task, splits.sensitive)
    )
    for sent, task, sensitive in _sent(model, batches, defense):
        task_accuracy.update(model.head(sent.payload), task)
        if model.adversary is not None:
            adversary_accuracy.update(model.adversary(sent.payload), sensitive)
    metrics = {"val/task_balanced_accuracy": float(task_accuracy.compute())}
    if model.adversary is not None:
        metrics["val/simulated_adversary_balanced_accuracy"] = float(adversary_accuracy.compute())
    return metrics


def calibrate_scale(model: SplitModel, batches: Batches, defense: Defense) -> float:
    """One step of the quantiser: the 99.9th percentile of positive kept activations over 255.

    Larger values saturate. The number is static: a scale per picture would tell something about the picture.
    """
    if (neck := defense.recipe.network.bottleneck) is not None:
        return 1 / (2**neck.bits - 1)  # values end at 1
    values: list[np.ndarray] = []
    seen = 0
    for sent, *_ in _sent(model, batches, defense):
        payload = sent.payload.float()
        values.append(payload[payload > 0].cpu().numpy())
        seen += len(payload)
        if seen >= _CALIBRATION_PICTURES:
            break
    positive = np.concatenate(values)
    if positive.size == 0:
        raise ConfigError(
            "the client network gives no positive activation: the training diverged. Lower the learning rate."
        )
    return float(np.percentile(positive, _CALIBRATION_PERCENTILE)) / 255


def _on_devices(
    fabric: Fabric, model: SplitModel, optimizer: torch.optim.Optimizer
) -> tuple[SplitModel, torch.optim.Optimizer]:
    wrapped: dict[str, Any] = {
        name: fabric.setup_module(module.to(memory_format=torch.channels_last))
        for name, module in model.networks().items()
        if any(True for _ in module.parameters())
    }
    on_devices: torch.optim.Optimizer = fabric.setup_optimizers(optimizer)  # type: ignore[assignment]
    return replace(model, **wrapped), on_devices


def _loaders(fabric: Fabric, recipe: Recipe, splits: data.Splits) -> tuple[Batches, Batches, DistributedSampler[Any]]:
    share = recipe.optim.batch_size // fabric.world_size
    if len(splits.train) < recipe.optim.batch_size or share < 2:
        raise ConfigError(
            f"{len(splits.train)} training pictures on {fabric.world_size} device(s) do not fill a batch of "
            f"{recipe.optim.batch_size}; change optim.batch_size"
        )

    def sampler(split: data.LabelledPictures, shuffle: bool) -> DistributedSampler[Any]:
        return DistributedSampler(split, fabric.world_size, fabric.global_rank, shuffle=shuffle, seed=recipe.seed)

    train_sampler = sampler(splits.train, shuffle=True)
    # Not fabric.setup_dataloaders: its loaders count their own epochs, so a resumed run would shuffle differently.
    train_batches = DataLoader(splits.train, share, sampler=train_sampler, drop_last=True)
    val_batches = DataLoader(splits.val, share, sampler=sampler(splits.val, shuffle=False))
    return train_batches, val_batches, train_sampler


@app.command()
def _main(
    recipe: Annotated[Path, typer.Option(help="YAML file, or the name of one in training/recipes")],
    out: Annotated[Path, typer.Option(help="folder of the run; resumed when it holds a checkpoint")],
    data: Annotated[Path | None, typer.Option(help="root of the data set")] = None,
    override: Annotated[list[str] | None, typer.Option("--set", help="section.key=value, may be repeated")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="processes or GPUs")] = 1,
) -> None:
    """Train one recipe."""
    with errors_in_words():
        loaded = Recipe.load(recipe, override or [])
        try:
            fabric = Fabric(accelerator=accelerator, devices=devices, precision=loaded.precision)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"--accelerator {accelerator} --devices {devices}: {error}") from error
        train(loaded, data, out, fabric)


if __name__ == "__main__":
    app()
