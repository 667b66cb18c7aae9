"""What an NVIDIA GPU computes, and how fast: ``python -m tests.benchmarks.gpu BUNDLE … --data DIR``.

For each bundle, the device graph on CUDA, launched node by node and replayed as a CUDA graph, beside the CPU:

* agreement: the same pictures and random numbers, one at a time and in batches of 64. A channel that flips is counted,
  and so is each value that falls into another step of the quantiser;
* opening: how long it takes until the first payload is there;
* time of a call, in turns: copies to and from the GPU's memory are in it.

The head, where the model repository has it, likewise.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.config import Device
from dcp_sdk.contract import Contract
from dcp_sdk.obfuscate import graph_inputs
from dcp_sdk.runtime import Graph
from dcp_sdk.serving.on_disk import GRAPH_FILE
from tests.benchmarks.record import record
from tests.benchmarks.speed import in_turns, percentiles
from tests.tiny import ROOT
from training import data
from training.config import Recipe

Tensors = dict[str, npt.NDArray[Any]]
ALONE, TOGETHER = 256, 64
"""Pictures that are seen one at a time, and pictures in a batch."""
WAYS: dict[str, tuple[Device, bool]] = {"cpu": ("cpu", False), "cuda": ("cuda", False), "cuda_graph": ("cuda", True)}


def open_ways(file: Path, sha256: str, **tensors: Any) -> dict[str, Graph]:
    """Open one graph in each way."""
    return {
        name: Graph(file.read_bytes(), sha256, where=file, device=device, cuda_graph=captured, **tensors)
        for name, (device, captured) in WAYS.items()
    }


def agreement(ways: dict[str, Graph], contract: Contract, pictures: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Count what differs from the CPU's payloads."""

    def batches(size: int, count: int) -> Iterator[Tensors]:
        for start in range(0, count - size + 1, size):
            yield graph_inputs(contract, pictures[start : start + size])

    found: dict[str, Any] = {}
    for how, size, count in (("alone", 1, ALONE), ("together", TOGETHER, len(pictures))):
        sums = {
            name: {"pictures": 0, "other_channels": 0, "values": 0, "one_step_off": 0, "more_steps_off": 0}
            for name in ways
            if name != "cpu"
        }
        for inputs in batches(size, count):
            channels, features = ways["cpu"].run(inputs)
            for name, sum_ in sums.items():
                got_channels, got_features = ways[name].run(inputs)
                steps = np.abs(got_features.astype(int) - features.astype(int))
                sum_["pictures"] += len(channels)
                sum_["other_channels"] += int((got_channels != channels).any(axis=1).sum())
                sum_["values"] += steps.size
                sum_["one_step_off"] += int((steps == 1).sum())
                sum_["more_steps_off"] += int((steps > 1).sum())
        found[how] = sums
    return found


def opening(file: Path, sha256: str, first: Tensors, **tensors: Any) -> dict[str, list[float]]:
    """Milliseconds until a graph is open, of its first run and of its second."""
    found = {}
    for name, (device, captured) in WAYS.items():
        times, started = [], time.perf_counter()
        graph = Graph(file.read_bytes(), sha256, where=file, device=device, cuda_graph=captured, **tensors)
        times.append(time.perf_counter() - started)
        for _ in range(2):
            started = time.perf_counter()
            graph.run(first)
            times.append(time.perf_counter() - started)
        found[name] = [round(1000 * seconds, 2) for seconds in times]
    return found


def timed(ways: dict[str, Graph], inputs: Tensors, turns: int) -> dict[str, dict[str, float]]:
    """Time a call in each way, in turns."""
    tasks = {name: lambda graph=graph: graph.run(inputs) for name, graph in ways.items()}
    return {name: percentiles(times) for name, times in in_turns(turns, **tasks).items()}


def measure(bundle: Path, repository: Path, folder: Path, turns: int) -> dict[str, Any]:
    """Measure one bundle, and its head."""
    manifest = Manifest.load(bundle)
    contract = manifest.contract
    pictures = data.load(Recipe.model_validate(manifest.provenance.settings).data, folder).val.pictures
    file, tensors = bundle / DEVICE_GRAPH_FILE, {"inputs": contract.device_inputs, "outputs": contract.payload}
    one = graph_inputs(contract, pictures[:1])
    figures: dict[str, Any] = {
        "bundle": manifest.name,
        "first_ms": opening(file, contract.device_sha256, one, **tensors),
    }
    ways = open_ways(file, contract.device_sha256, **tensors)
    figures["agreement"] = agreement(ways, contract, pictures)
    figures["device"] = {
        f"batch_{size}": timed(ways, graph_inputs(contract, pictures[:size]), turns) for size in (1, 8)
    }
    head = repository / contract.head.model / str(contract.head.version) / GRAPH_FILE
    if head.exists():
        answers = {"inputs": contract.payload, "outputs": (contract.answer,)}
        heads = open_ways(head, contract.head.sha256, **answers)
        names = [spec.name for spec in contract.payload]
        payloads = {
            size: dict(zip(names, ways["cpu"].run(graph_inputs(contract, pictures[:size])), strict=True))
            for size in (1, 8, 64)
        }
        right = heads["cpu"].run(payloads[64])[0]
        figures["head"] = {
            "largest_difference": {
                name: float(np.abs(graph.run(payloads[64])[0] - right).max()) for name, graph in heads.items()
            },
            **{f"batch_{size}": timed(heads, payload, turns) for size, payload in payloads.items()},
        }
    return figures


def gpu() -> str:
    """Name the GPU and its driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Measure every bundle given, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--model-repository", type=Path, default=ROOT / "triton_models")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    measured = [measure(bundle, options.model_repository, options.data, options.turns) for bundle in options.bundles]
    figures = {"gpu": gpu(), "bundles": measured}
    record("gpu", "python -m tests.benchmarks.gpu BUNDLE … --data DIR", figures, provider="CUDAExecutionProvider")


if __name__ == "__main__":
    main()
