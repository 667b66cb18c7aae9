"""What a core carries, and where it bends: ``python -m tests.benchmarks.serving``.

Open-loop load at rising rates, in turns on the same machine in the same run: the shipped head on Triton with and
without dynamic batching, the whole network on the same Triton, and the whole network with torch behind FastAPI. The
ceiling is the head in ONNX Runtime without any server. Cost is counted in processor time of the server's processes,
which tells more than the clock on a machine with other work.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import tritonclient.grpc

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.contract import Contract
from dcp_sdk.serving import TritonServer
from tests.benchmarks.open_loop import Target, drive
from tests.benchmarks.servers_under_test import WHOLE, add_whole_network, cpu_s, fastapi, without_batching, without_head
from tests.tiny import PAPER, ROOT, SHIPPED

UNBATCHED = "head_without_batching"
NO_HEAD = "no_head"
P50_LIMIT_MS = 50.0
"""The knee is the highest rate with all requests answered and a median within this. The higher percentiles stand in the
steps; on a machine with other work they say more about that work."""
BATCHES = (1, 4, 16, 64)
PICTURES_UNDER_WAY, FEWEST_UNDER_WAY = 64, 4
"""Requests that are not answered yet at any time: so many pictures, and so many requests at least."""
TURN_S = 1.0
"""How long each way has a turn at least: the processor's time is counted in hundredths of a second."""
USD_PER_CORE_HOUR = 0.04
"""A round price of a rented core, for orientation."""


@dataclass(frozen=True)
class System:
    """One server under test."""

    name: str
    target: Target
    group: int
    """Process group of the server."""


def payload(contract: Contract, batch: int = 1) -> dict[str, npt.NDArray[Any]]:
    """Draw payloads that fit a contract, by tensor name."""
    generator, arrays = np.random.default_rng(0), {}
    for spec in contract.payload:
        if spec.order == "strictly_ascending":
            arrays[spec.name] = np.tile(np.arange(spec.shape[-1], dtype=spec.dtype), (batch, 1))
        else:
            arrays[spec.name] = generator.integers(int(spec.low), int(spec.high) + 1, (batch, *spec.shape), spec.dtype)
    return arrays


def triton_inputs(contract: Contract, arrays: dict[str, npt.NDArray[Any]]) -> list[tritonclient.grpc.InferInput]:
    """Wrap arrays for tritonclient."""
    inputs = []
    for spec in contract.payload:
        inputs.append(tritonclient.grpc.InferInput(spec.name, arrays[spec.name].shape, spec.triton_type))
        inputs[-1].set_data_from_numpy(arrays[spec.name])
    return inputs


def triton_body(contract: Contract, model: str, batch: int = 1) -> bytes:
    """Serialise the request for some payloads."""
    from tritonclient.grpc._utils import _get_inference_request

    request = _get_inference_request(
        model_name=model,
        inputs=triton_inputs(contract, payload(contract, batch)),
        model_version="1",
        request_id="",
        outputs=None,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    body: bytes = request.SerializeToString()
    return body


def climb(systems: list[System], *, first: float, factor: float, seconds: float) -> dict[str, list[dict[str, Any]]]:
    """Raise the rate step by step, each system in turn, until it does not follow any more."""
    steps: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    running, rate = list(systems), first
    while running:
        for system in list(running):
            before = cpu_s(system.group)
            outcome = drive(system.target, rate, seconds, seed=len(steps[system.name]))
            used_s, answered = cpu_s(system.group) - before, len(outcome.latencies_ms)
            asked = answered + sum(outcome.failures.values())
            p50, p95, p99 = np.percentile(outcome.latencies_ms or (float("inf"),), (50, 95, 99)).round(2).tolist()
            step = {
                "rate_per_s": round(rate, 1),
                "asked": asked,
                "answered": answered,
                "failures": outcome.failures,
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
                "server_cpu_ms_per_answer": round(1000 * used_s / answered, 3) if answered else None,
            }
            steps[system.name].append(step)
            print(system.name, step, flush=True)
            if answered < 0.98 * asked or p50 > 2 * P50_LIMIT_MS:
                running.remove(system)
        rate *= factor
    return steps


def summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Find the knee, and what a core does there."""
    good = [step for step in steps if step["answered"] == step["asked"] and step["p50_ms"] <= P50_LIMIT_MS]
    knee = max(good, key=lambda step: float(step["rate_per_s"]), default=None)
    if knee is None:
        return {"knee_per_s": None}
    per_core = 1000 / float(knee["server_cpu_ms_per_answer"])
    return {
        "knee_per_s": knee["rate_per_s"],
        **{f"{name}_at_knee": knee[name] for name in ("p50_ms", "p95_ms", "p99_ms")},
        "predictions_per_core_second": round(per_core, 1),
        "usd_per_thousand": float(f"{USD_PER_CORE_HOUR / 3600 / per_core * 1000:.2g}"),
    }


def ceiling(bundle: Path, *, turns: int) -> dict[str, Any]:
    """Compare a head on Triton, saturated, with its bare graph at the same batch sizes, and a model that does nothing.

    In turns; pictures per second by the clock, and per second of the processor, which other work on the machine does
    not touch. Requests are serialised beforehand, and enough of them are under way for the server to put some together,
    as from many devices: how many pictures it computes at a time is counted. What the model that does nothing reaches,
    no head can on this server.
    """
    contract = Manifest.load(bundle).contract
    model = contract.head.model
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # as model.py, like the next line
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = ROOT / "triton_models" / model / str(contract.head.version) / "model.onnx"
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "triton_models" / model, Path(folder, model))
        without_head(Path(folder), model, NO_HEAD)
        with (
            TritonServer(folder, models=[model, NO_HEAD], venv=ROOT / ".venv-triton") as server,
            tritonclient.grpc.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client,
            grpc.insecure_channel(server.grpc_address.removeprefix("grpc://")) as channel,
        ):
            assert server.pid is not None
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for batch in BATCHES:
                arrays, calls = payload(contract, batch), max(8, 256 // batch)

                def bare(arrays: dict[str, npt.NDArray[Any]] = arrays, calls: int = calls) -> None:
                    for _ in range(calls):
                        session.run(None, arrays)

                def served(body: bytes, batch: int = batch, calls: int = calls) -> None:
                    under_way: deque[grpc.Future] = deque()
                    for _ in range(calls):
                        if len(under_way) >= max(FEWEST_UNDER_WAY, PICTURES_UNDER_WAY // batch):
                            under_way.popleft().result()
                        under_way.append(ask.future(body, timeout=TURN_S * 10))
                    for answer in under_way:
                        answer.result()

                bodies = [triton_body(contract, asked, batch) for asked in (model, NO_HEAD)]
                ways: dict[str, tuple[Callable[[], object], Callable[[], float]]] = {
                    "onnx_runtime": (bare, time.process_time),
                    "triton": (partial(served, bodies[0]), partial(cpu_s, server.pid)),
                    "triton_without_head": (partial(served, bodies[1]), partial(cpu_s, server.pid)),
                }
                pictures, runs = _computed(client, model)
                compared: dict[str, dict[str, float]] = _compare(ways, batch * calls, turns)
                more_pictures, more_runs = _computed(client, model)
                compared["triton"]["pictures_in_a_run"] = round((more_pictures - pictures) / (more_runs - runs), 1)
                figures[str(batch)] = compared
    return figures


def _computed(client: tritonclient.grpc.InferenceServerClient, model: str) -> tuple[int, int]:
    """Pictures that a model has answered for, and runs of its graph."""
    (found,) = client.get_inference_statistics(model, as_json=True)["model_stats"]
    return int(found["inference_count"]), int(found["execution_count"])


def _compare(
    ways: Mapping[str, tuple[Callable[[], object], Callable[[], float]]], pictures: int, turns: int
) -> dict[str, dict[str, float]]:
    """Do the same work in several ways, each with the clock of its processor; ratios are to the first, turn by turn."""
    seconds = {name: np.zeros((turns, 2)) for name in ways}
    for turn in range(turns):
        for name, (work, processor_s) in ways.items():
            before, start, count = processor_s(), time.perf_counter(), 0
            while time.perf_counter() < start + TURN_S:
                work()
                count += pictures
            passed = time.perf_counter() - start, processor_s() - before
            seconds[name][turn] = np.divide(passed, count)
    first = next(iter(ways))
    figures = {}
    for name, spent in seconds.items():
        clock, core = (1 / np.median(spent, axis=0)).tolist()
        ratio, core_ratio = np.median(seconds[first] / spent, axis=0).tolist()
        figures[name] = {
            "per_s": round(clock, 1),
            "per_core_second": round(core, 1),
            "ratio": round(ratio, 3),
            "ratio_per_core_second": round(core_ratio, 3),
        }
    return figures


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def measure(bundle: Path, *, first: float, factor: float, seconds: float, turns: int) -> dict[str, Any]:
    """Start all servers, and measure them in turns."""
    contract = Manifest.load(bundle).contract
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        repository = Path(folder, "models")
        shutil.copytree(ROOT / "triton_models" / contract.head.model, repository / contract.head.model)
        without_batching(repository, contract.head.model, UNBATCHED)
        whole = add_whole_network(bundle, repository)

        def triton(model: str, of: Contract, name: str) -> System:
            server = stack.enter_context(TritonServer(repository, models=[model], venv=ROOT / ".venv-triton"))
            assert server.pid is not None
            return System(name, Target(server.grpc_address, triton_body(of, model)), server.pid)

        systems = [
            triton(contract.head.model, contract, "head"),
            triton(UNBATCHED, contract, UNBATCHED),
            triton(WHOLE, whole, WHOLE),
        ]
        address, group = stack.enter_context(fastapi(bundle, _free_port()))
        systems.append(System("fastapi_torch", Target(address, payload(whole)["image"].tobytes()), group))
        steps = climb(systems, first=first, factor=factor, seconds=seconds)
    return {
        "bundle": Manifest.load(bundle).name,
        "p50_limit_ms": P50_LIMIT_MS,
        "usd_per_core_hour": USD_PER_CORE_HOUR,
        "summary": {name: summary(found) for name, found in steps.items()},
        "ceiling_by_batch": {one.name: ceiling(one, turns=turns) for one in (bundle, PAPER)},
        "steps": steps,
    }


def main() -> None:
    """Measure, and record."""
    from tests.benchmarks.record import record  # late: it needs torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--first", type=float, default=10.0, help="requests per second of the first step")
    parser.add_argument("--factor", type=float, default=1.6, help="from one step to the next")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a step")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    load = {name: value for name, value in vars(options).items() if name != "bundle"}
    record("serving", "python -m tests.benchmarks.serving", load | measure(options.bundle, **load))


if __name__ == "__main__":
    main()
