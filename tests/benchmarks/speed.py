"""Ratios of times, measured in turns in one run: ``python -m tests.benchmarks.speed``.

* device cost: the whole device graph against the client network alone, cut out of the same file;
* SDK tax: what ``dcp bench`` shows, on a real Triton, over gRPC and HTTP, for both bundles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx.utils import Extractor

from dcp_sdk import Manifest, PrivateClient
from dcp_sdk.bench import measure
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.serving import TritonServer
from tests.benchmarks.record import record
from tests.tiny import PAPER, ROOT, SHIPPED

WARM_UP, BLOCK = 5, 40


def in_turns(turns: int, **tasks: Callable[[], Any]) -> dict[str, list[float]]:
    """Time blocks of each task in turns; milliseconds of each call.

    In a block a graph runs with caches that are warm from its last run: the graphs themselves are compared. What a
    whole call costs is measured call by call, cold as it comes (``dcp_sdk.bench.paired_times``).
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(turns):
        for name, task in tasks.items():
            time.sleep(0.01)
            for call in range(WARM_UP + BLOCK):
                start = time.perf_counter()
                task()
                if call >= WARM_UP:
                    times[name].append((time.perf_counter() - start) * 1000)
    return times


def percentiles(times: list[float]) -> dict[str, float]:
    """p50 and p95, in milliseconds."""
    return {f"p{q}_ms": round(float(np.percentile(times, q)), 4) for q in (50, 95)}


def session(graph: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """Open a graph on the CPU as the SDK does; 0 threads leaves the number to ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the SDK
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def device_cost(bundle: Path, turns: int, threads: int) -> dict[str, Any]:
    """Time the device graph, and the client network alone."""
    whole = onnx.load(bundle / DEVICE_GRAPH_FILE)
    fused = session(whole, threads)
    whole.graph.value_info.append(onnx.ValueInfoProto(name="activations"))
    alone = session(Extractor(whole).extract_model(["image"], ["activations"]), threads)
    crop = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    times = in_turns(
        turns,
        fused=lambda: fused.run(None, {"image": crop}),
        alone=lambda: alone.run(None, {"image": crop}),
    )
    return {
        "calls": turns * BLOCK,
        "threads": threads,
        "fused": percentiles(times["fused"]),
        "client_network_alone": percentiles(times["alone"]),
        "ratio_p50": round(statistics.median(times["fused"]) / statistics.median(times["alone"]), 4),
    }


def sdk_tax(bundle: Path, calls: int) -> dict[str, Any]:
    """Measure what ``dcp bench`` shows, rounded, over both protocols."""
    taxes = {}
    models = (Manifest.load(bundle).contract.head.model,)
    with TritonServer(ROOT / "triton_models", models=models, venv=ROOT / ".venv-triton") as server:
        for scheme, address in (("grpc", server.grpc_address), ("http", server.http_address)):
            with PrivateClient(bundle, address, device="cpu") as client:
                budget = asdict(measure(client, calls=calls))
            taxes[scheme] = {"calls": budget.pop("calls"), "stages": _rounded(budget.pop("stages")), **_rounded(budget)}
    return taxes


def _rounded(stages: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {key: round(value, 4) for key, value in stage.items()} for name, stage in stages.items()}


def main() -> None:
    """Measure both, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=PAPER)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    figures: dict[str, Any] = {
        "device_cost": [device_cost(options.bundle, options.turns, threads) for threads in (0, 1)]
    }
    figures["sdk_tax"] = {bundle.name: sdk_tax(bundle, options.turns * BLOCK) for bundle in (SHIPPED, PAPER)}
    record("speed", "python -m tests.benchmarks.speed", figures)


if __name__ == "__main__":
    main()
