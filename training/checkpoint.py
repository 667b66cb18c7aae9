"""One safetensors file per run: weights and optimiser state as tensors, facts as text. It cannot run code."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dcp_sdk.contract import Attribute
from dcp_sdk.errors import ConfigError

from .config import Recipe
from .defenses import defense_of
from .networks import SplitModel

__all__ = ["Checkpoint", "git_commit"]


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after a whole epoch."""

    recipe: Recipe
    task: Attribute
    sensitive: Attribute
    epoch: int
    """Epochs done."""
    quantisation_scale: float
    """One step of the uint8 quantiser, calibrated on training pictures."""
    commit: str
    hours: float
    """Wall-clock hours of training so far."""
    metrics: dict[str, float]
    """The last validation."""
    tensors: dict[str, Tensor] = field(repr=False)
    """``client.*``, ``head.*``, ``pruner.*``, … weights and ``optimizer.*`` state."""
    data: str = ""
    """:attr:`training.data.Splits.fingerprint` of what it was trained with; empty in checkpoints of before."""

    def save(self, path: Path) -> None:
        """Write atomically: a run that dies while saving keeps its previous checkpoint.

        Raises:
            ConfigError: It cannot be written.
        """
        apart = ("tensors", "recipe", "task", "sensitive")
        facts = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in apart}
        for name in ("recipe", "task", "sensitive"):
            facts[name] = getattr(self, name).model_dump(mode="json")
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(
                {name: tensor.contiguous().cpu() for name, tensor in self.tensors.items()},
                partial,
                metadata={"dcp": json.dumps(facts)},
            )
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"expected to write {path}, got {error}. Make room or choose another folder; the checkpoint of before, "
                "if there was one, is whole."
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a checkpoint.

        Raises:
            ConfigError: Not a checkpoint of this project.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})["dcp"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            recipe = Recipe.model_validate(facts.pop("recipe"))
            task = Attribute.model_validate(facts.pop("task"))
            sensitive = Attribute.model_validate(facts.pop("sensitive"))
            return cls(recipe=recipe, task=task, sensitive=sensitive, tensors=tensors, **facts)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"expected a checkpoint of training.train at {path}, got {type(error).__name__}: {error}"
            ) from error

    def model(self) -> SplitModel:
        """Build the trained networks, in float32 and evaluation mode."""
        model = defense_of(self.recipe, len(self.task.labels), len(self.sensitive.labels)).build()
        restore(model, self.tensors)
        for module in model.networks().values():
            module.eval()
        return model


def weights_of(model: SplitModel) -> dict[str, Tensor]:
    """All weights and buffers of the networks, under ``network.name``."""
    return {
        f"{network}.{name}": tensor
        for network, module in model.networks().items()
        for name, tensor in module.state_dict().items()
    }


def restore(model: SplitModel, tensors: dict[str, Tensor]) -> None:
    """Load what :func:`weights_of` gave."""
    for network, module in model.networks().items():
        prefix = f"{network}."
        module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of the optimiser as ``optimizer.PARAMETER.KEY`` tensors. Learning rates follow from the step alone."""
    return {
        f"optimizer.{parameter}.{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what :func:`optimizer_tensors` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, parameter, key = name.split(".", 2)
            state.setdefault(int(parameter), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def git_commit() -> str:
    """Commit of the code that runs, with ``-dirty`` when something is uncommitted; ``unknown`` outside of git."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
