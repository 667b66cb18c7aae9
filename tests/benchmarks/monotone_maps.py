"""Are the attacks fooled by a disguise? ``python -m tests.benchmarks.monotone_maps --bundle DIR --data DIR``.

Payloads of a bundle that hides nothing are put through maps that an attacker could undo for free (increasing, the same
for every picture). If the headline fell, the audit would take a change of scale for protection.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import strongest_of
from tests.benchmarks.record import record
from training import data as datasets
from training.attacks import ATTACKS
from training.audit.measure import measure_attack
from training.config import Recipe
from training.evaluate import attack_settings
from training.payloads import Payloads, collect

__all__ = ["MAPS", "disguised"]

Values = npt.NDArray[np.float32]

MAPS: dict[str, Callable[[Values], Values]] = {
    "identity": lambda values: values,
    "cube": lambda values: values**3,
    "exponential": lambda values: np.exp(4 * values),
    "a thousandth": lambda values: values / 1000,
    "a thousand times": lambda values: values * 1000,
}


def disguised(payloads: Payloads, name: str) -> Payloads:
    """Return the payloads with every value mapped."""
    return replace(payloads, features=MAPS[name](payloads.values()), scale=1.0)


def main() -> None:
    """Attack each disguise, and record how far the headline moves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--attacks", nargs="*", choices=ATTACKS, default=list(ATTACKS))
    options = parser.parse_args()
    manifest = Manifest.load(options.bundle)
    recipe = Recipe.model_validate(manifest.provenance.settings)
    splits = datasets.load(recipe.data, options.data)
    leaked, target = (collect(options.bundle, manifest, split) for split in (splits.train, splits.val))
    labels = splits.sensitive.labels
    settings = attack_settings(recipe, len(labels), seed=0, quick=False)
    figures: dict[str, dict[str, float | str]] = {}
    for name in MAPS:
        some, other = disguised(leaked, name), disguised(target, name)
        results = [measure_attack(attack, some, other, settings, labels) for attack in options.attacks]
        best = strongest_of(results)
        assert best is not None
        each = {result.name: round(result.balanced_accuracy.value, 4) for result in results}
        figures[name] = {
            "headline": round(best.balanced_accuracy.value, 4),
            "attack": best.name,
            "how": best.how,
            **each,
        }
        print(name, figures[name])
    plain = float(figures["identity"]["headline"])
    moved = max(abs(float(figure["headline"]) - plain) for figure in figures.values())
    words = ["python", "-m", "tests.benchmarks.monotone_maps", "--bundle", "DIR", "--data", "DIR"]
    command = shlex.join([*words, "--attacks", *options.attacks])
    record("monotone_maps", command, {"bundle": manifest.name, "headline_moves_by": round(moved, 4), "maps": figures})


if __name__ == "__main__":
    main()
