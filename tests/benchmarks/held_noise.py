"""What if noise were held while a face moves? ``python -m tests.benchmarks.held_noise --data DIR``.

A server sees several frames of one face. Averaging undoes noise that is drawn anew for each frame; noise that is held
for the stretch stays in the average, but differences between frames tell without it how the values vary. So
adversaries get both, mean and standard deviation of each value over the frames, of a face that stands still and of one
that moves, with either kind of noise. The device graph draws anew for each picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from dcp_sdk.bundles.manifest import Manifest
from tests.benchmarks.record import record
from tests.tiny import SHIPPED
from training import data as datasets
from training.attacks import ATTACKS
from training.audit.many_frames import frames
from training.audit.measure import measure_many_frames
from training.config import Recipe
from training.data import LabelledPictures
from training.evaluate import attack_settings
from training.payloads import Payloads, collect

__all__ = ["CASES", "over_frames"]

CASES: dict[str, dict[str, bool]] = {
    "stands still, noise drawn anew": {},
    "stands still, noise held": {"held": True},
    "moves, noise drawn anew": {"moving": True},
    "moves, noise held": {"moving": True, "held": True},
}


def over_frames(
    bundle: Path,
    manifest: Manifest,
    pictures: LabelledPictures,
    count: int,
    *,
    moving: bool = False,
    held: bool = False,
) -> Payloads:
    """Put mean and standard deviation of each value over ``count`` frames side by side, as channels of one payload."""
    sums = np.zeros((2, len(pictures), *manifest.contract.values_shape))
    for rows, _, _, values in frames(bundle, manifest, pictures.pictures, count, moving=moving, held=held):
        sums[0][rows] += values
        sums[1][rows] += values.astype(np.float64) ** 2
    mean, square = sums / count
    both = np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))], axis=1).astype(np.float32)
    everything = np.tile(np.arange(both.shape[1]), (len(both), 1))
    return Payloads(everything, both, pictures.sensitive, pictures.task, both.shape[1], manifest.contract.pruning.scale)


def main() -> None:
    """Let adversaries learn and answer from each kind of frames, and record what they read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--attacks", nargs="*", choices=ATTACKS, default=["linear probe", "MLP", "gradient boosting"])
    options = parser.parse_args()
    manifest = Manifest.load(options.bundle)
    if manifest.contract.noise is None or manifest.contract.pruning.channels != manifest.contract.pruning.kept:
        parser.error(f"{options.bundle}: expected noise, and values that are the same for all pictures")
    recipe = Recipe.model_validate(manifest.provenance.settings)
    splits = datasets.load(recipe.data, options.data)
    labels = splits.sensitive.labels
    settings = attack_settings(recipe, len(labels), seed=0, quick=False)

    def read(leaked: Payloads, target: Payloads) -> dict[str, Any]:
        results, luck = measure_many_frames(leaked, target, settings, labels, options.attacks, [settings.seed], None)
        best = max(results, key=lambda result: result.balanced_accuracy.value)
        figures = {
            "strongest": best.name,
            "balanced_accuracy": best.balanced_accuracy.model_dump(),
            "auc": max(result.auc or 0 for result in results),
            "luck": luck.model_dump() if luck else None,
        }
        print(figures, flush=True)
        return figures

    found = {"one frame": read(*(collect(options.bundle, manifest, side) for side in (splits.train, splits.val)))}
    for name, how in CASES.items():
        seen = [
            over_frames(options.bundle, manifest, side, options.frames, **how) for side in (splits.train, splits.val)
        ]
        found[name] = read(*seen)
    command = "python -m tests.benchmarks.held_noise --data DIR"
    record("held_noise", command, {"bundle": manifest.name, "frames": options.frames, "cases": found})


if __name__ == "__main__":
    main()
