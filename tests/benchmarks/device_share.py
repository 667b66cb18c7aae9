"""How much of the whole network's time does the device spend? ``python -m tests.benchmarks.device_share BUNDLE …``.

The device graph of each bundle against the whole, unsplit network of its recipe (fresh weights: time does not depend on
them), both in ONNX Runtime on the CPU, in turns.
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
from tests.benchmarks.record import record
from tests.benchmarks.speed import BLOCK, in_turns, percentiles, session
from tests.benchmarks.whole_network import write_whole_network


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


def main() -> None:
    """Measure every bundle given, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    shares = [device_share(bundle, options.turns, options.threads) for bundle in options.bundles]
    record("device_share", "python -m tests.benchmarks.device_share BUNDLE …", {"bundles": shares})


if __name__ == "__main__":
    main()
