"""How much of the whole network's time does the device spend? ``python -m tests.benchmarks.device_share BUNDLE …``.

The device graph of each bundle against the whole, unsplit network of its recipe (fresh weights: time does not depend on
them), both in ONNX Runtime on the CPU, in turns. ``--recipe NAME`` exports one that learnt next to nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.obfuscate import graph_inputs
from export.to_onnx import export
from tests.benchmarks.record import record
from tests.benchmarks.speed import BLOCK, in_turns, percentiles, session
from tests.benchmarks.whole_network import write_whole_network
from training.config import Recipe
from training.run_folder import CHECKPOINT_FILE
from training.train import train

_BARELY = ("data.kind=generated", "data.task.name=shape", "data.sensitive.name=tint", "data.others=[]")
_BARELY += ("data.generated_pictures=64", "optim.epochs=1", "optim.batch_size=32")


def device_share(bundle: Path, turns: int, threads: int) -> dict[str, Any]:
    """Time one bundle's device graph, and the network that it is a part of."""
    manifest = Manifest.load(bundle)
    contract = manifest.contract
    size_px = contract.preprocessing.size_px
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.onnx"
        write_whole_network(manifest, path)
        whole = session(onnx.load(path), threads)
    device = session(onnx.load(bundle / DEVICE_GRAPH_FILE), threads)
    crop = np.random.default_rng(0).integers(0, 256, (1, size_px, size_px, 3), np.uint8)
    inputs = graph_inputs(contract, crop)
    times = in_turns(turns, device=lambda: device.run(None, inputs), whole=lambda: whole.run(None, {"image": crop}))
    return {
        "bundle": manifest.name,
        "calls": turns * BLOCK,
        "threads": threads,
        "device": percentiles(times["device"]),
        "whole": percentiles(times["whole"]),
        "share_p50": round(statistics.median(times["device"]) / statistics.median(times["whole"]), 4),
    }


def barely_trained(name: str, folder: Path) -> Path:
    """Make a bundle of a recipe in seconds, from generated pictures."""
    train(Recipe.load(name, [*_BARELY, f"name={name}"]), None, folder / "run")
    bundle = folder / name
    export(folder / "run" / CHECKPOINT_FILE, bundle, folder / "triton_models", folder=None, pictures=16)
    return bundle


def main() -> None:
    """Measure every bundle and recipe given, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE")
    parser.add_argument("--recipe", action="append", default=[], metavar="NAME", help="may be repeated")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = [barely_trained(name, Path(folder) / str(number)) for number, name in enumerate(options.recipe)]
        bundles = [*options.bundles, *fresh]
        shares = [device_share(bundle, options.turns, options.threads) for bundle in bundles]
    words = [*map(str, options.bundles), *(f"--recipe {name}" for name in options.recipe)]
    record("device_share", f"python -m tests.benchmarks.device_share {' '.join(words)}", {"bundles": shares})


if __name__ == "__main__":
    main()
