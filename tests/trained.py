"""A pair that comes out of a real training and a real export, small enough for a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dcp_sdk.bundles.manifest import Manifest
from export.parity import Parity
from export.to_onnx import export
from training.config import Recipe
from training.run_folder import CHECKPOINT_FILE
from training.train import train


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the pair that was exported from it."""

    checkpoint: Path
    bundle: Path
    repository: Path
    parity: Parity

    @property
    def head(self) -> Path:
        """The task head's graph."""
        head = self.manifest.contract.head
        return self.repository / head.model / str(head.version) / "model.onnx"

    @property
    def manifest(self) -> Manifest:
        """The bundle's."""
        return Manifest.load(self.bundle)


def train_and_export(folder: Path, *overrides: str) -> Trained:
    """Train the generated recipe for two epochs under ``folder`` and export it, compared on 96 pictures."""
    recipe = Recipe.load(Path("generated"), ["data.generated_pictures=128", "optim.epochs=2", *overrides])
    train(recipe, None, folder / "run")
    checkpoint, bundle, repository = folder / "run" / CHECKPOINT_FILE, folder / "bundle", folder / "triton_models"
    parity = export(checkpoint, bundle, repository, folder=None, pictures=96)
    return Trained(checkpoint, bundle, repository, parity)
