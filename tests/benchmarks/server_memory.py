"""Does a server grow over a million requests? ``python -m tests.benchmarks.server_memory``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.serving import TritonServer
from tests.benchmarks.open_loop import Target, drive
from tests.benchmarks.servers_under_test import members
from tests.benchmarks.serving import triton_body
from tests.tiny import ROOT, SHIPPED


def resident_mib(group: int) -> float:
    """Resident memory of all processes of a group; what they share counts for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in members(group))
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def measure(requests: int, rate_per_s: float, step_s: float) -> dict[str, Any]:
    """Send open-loop load in steps until that many were answered, and look at the server after each."""
    contract = Manifest.load(SHIPPED).contract
    answered, failed, memory = 0, 0, []
    with TritonServer(ROOT / "triton_models", models=[contract.head.model], venv=ROOT / ".venv-triton") as server:
        assert server.pid is not None
        target = Target(server.grpc_address, triton_body(contract, contract.head.model))
        while answered < requests:
            outcome = drive(target, rate_per_s, step_s, seed=len(memory))
            answered += len(outcome.latencies_ms)
            failed += sum(outcome.failures.values())
            memory.append((answered, resident_mib(server.pid)))
            print(memory[-1], flush=True)
    # The first tenth fills caches and batches of every size.
    steady = [point for point in memory if point[0] >= answered / 10]
    slope = float(np.polyfit(*zip(*steady, strict=True), 1)[0]) if len(steady) > 2 else 0.0
    return {
        "answered": answered,
        "failed": failed,
        "resident_mib": {"first": memory[0][1], "after_a_tenth": steady[0][1], "last": memory[-1][1]},
        "resident_kib_per_1000_requests": round(slope * 1024 * 1000, 2),
    }


def main() -> None:
    """Measure, and record."""
    from tests.benchmarks.record import record  # late: it needs torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=1200.0)
    parser.add_argument("--step-s", type=float, default=20.0)
    options = parser.parse_args()
    figures = measure(options.requests, options.rate, options.step_s)
    command = f"python -m tests.benchmarks.server_memory --rate {options.rate:g} --step-s {options.step_s:g}"
    record("server_memory", command, {"rate_per_s": options.rate, **figures})


if __name__ == "__main__":
    main()
