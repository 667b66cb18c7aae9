"""Hard means absent, k is exact, no bit flips: on 10,000 real pictures, ``python -m tests.benchmarks.hard_mask``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from rich.progress import track

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.contract import Contract
from export.fused import halves
from export.parity import GARBAGE, compare, open_graph, with_garbage
from export.to_onnx import pictures_for_parity
from tests.benchmarks.record import record
from tests.tiny import PAPER, ROOT
from training.checkpoint import Checkpoint

BATCH = 64


def absent(bundle: Path, contract: Contract, images: npt.NDArray[np.uint8]) -> dict[str, int]:
    """Replace each pruned channel by values of any size and sign, and count the payloads that stay byte for byte."""
    graph = onnx.load(bundle / DEVICE_GRAPH_FILE)
    normal, damaged = open_graph(graph), open_graph(with_garbage(graph))
    random = np.random.default_rng(0)
    spec = contract.payload[1]
    channels = contract.pruning.channels
    same = exact = 0
    for start in track(range(0, len(images), BATCH), "hard means absent"):
        batch = images[start : start + BATCH]
        garbage = random.standard_normal((len(batch), channels, *spec.shape[1:])).astype(np.float32)
        garbage *= 10.0 ** random.uniform(-6, 30, (len(batch), channels, 1, 1)).astype(np.float32)
        ours = normal.run(None, {"image": batch})
        theirs = damaged.run(None, {"image": batch, GARBAGE: garbage})
        for one, other in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
            same += all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))
            exact += len(np.unique(one[0])) == contract.pruning.kept
    return {"pictures": len(images), "payload_byte_identical": same, "exactly_k": exact}


def main() -> None:
    """Measure both, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="that the bundle came from")
    parser.add_argument("--bundle", type=Path, default=PAPER)
    parser.add_argument("--model-repository", type=Path, default=ROOT / "triton_models")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=10_000)
    options = parser.parse_args()
    checkpoint = Checkpoint.load(options.checkpoint)
    contract = Manifest.load(options.bundle).contract
    images, _ = pictures_for_parity(checkpoint, options.data, options.pictures)
    figures: dict[str, Any] = {"hard_means_absent": absent(options.bundle, contract, images)}
    head = options.model_repository / contract.head.model / str(contract.head.version) / "model.onnx"
    figures["batch_invariance"] = asdict(compare(*halves(checkpoint), options.bundle / DEVICE_GRAPH_FILE, head, images))
    record("hard_mask", "python -m tests.benchmarks.hard_mask --checkpoint FILE --data DIR", figures)


if __name__ == "__main__":
    main()
