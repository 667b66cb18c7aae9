"""What do late requests do to Triton before 25.04? ``python -m tests.benchmarks.late_requests``.

Threads ask the tiny pair's head over gRPC with deadlines around the time that an answer takes, on the Triton of
``.venv-triton`` (2.51, which is 24.10), in turns: left to their end as the SDK does, and ended at their deadline as
gRPC would. A server that crashes is started again.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from dcp_sdk.deadline import Deadline
from dcp_sdk.serving import TritonServer
from dcp_sdk.transport import grpc_link
from dcp_sdk.transport.grpc_link import GrpcLink, LinkLost
from tests.benchmarks.record import record
from tests.benchmarks.serving import triton_body
from tests.tiny import ROOT, Tiny, write_tiny

THREADS = 6
SHORTEST_S, LONGEST_S = 0.0007, 0.003


@contextlib.contextmanager
def ended_at(late_s: float) -> Iterator[None]:
    """Let gRPC end calls so long after their deadline."""
    usual, grpc_link._LATE_S = grpc_link._LATE_S, late_s
    try:
        yield
    finally:
        grpc_link._LATE_S = usual


def connect(server: TritonServer) -> GrpcLink:
    """Open a connection of one's own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    link = GrpcLink(server.grpc_address.removeprefix("grpc://"), credentials=None, options=options, metadata={})
    with contextlib.suppress(TimeoutError, grpc.RpcError, LinkLost):
        link.call("ServerLive", service_pb2.ServerLiveRequest(), Deadline(5))
    return link


def is_late(error: Exception) -> bool:
    """Tell a deadline, of either kind, from a server that is gone."""
    return isinstance(error, TimeoutError) or (
        isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    )


def count(tiny: Tiny, server: TritonServer, seconds: float) -> Counter[str]:
    """Ask for ``seconds``; count what became of the requests, and how often the server crashed."""
    contract = tiny.manifest.contract
    request = service_pb2.ModelInferRequest.FromString(triton_body(contract, contract.head.model))
    over, counted = threading.Event(), Counter[str]()

    def ask(seed: int) -> Counter[str]:
        draw, mine = random.Random(seed), Counter[str]()
        link = connect(server)
        while not over.is_set():
            try:
                link.call("ModelInfer", request, Deadline(draw.uniform(SHORTEST_S, LONGEST_S)))
                mine["answered"] += 1
            except (TimeoutError, grpc.RpcError, LinkLost) as error:
                mine["late" if is_late(error) else "failed"] += 1
                if not link.alive:  # it has crashed, and comes again
                    time.sleep(0.1)
                    link = connect(server)
        link.close()
        return mine

    with ThreadPoolExecutor(THREADS) as pool:
        asking = [pool.submit(ask, seed) for seed in range(THREADS)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.02)
            if server.pid is None:
                counted["crashes"] += 1
                server.start()
        over.set()
        for one in asking:
            counted += one.result()
    return counted


def main() -> None:
    """Count, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    ways: dict[str, float] = {"left to their end": grpc_link._LATE_S, "ended at their deadline": 0.0}
    found: dict[str, Any] = {name: Counter() for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_tiny(Path(folder))
        for _ in range(options.turns):
            for name, late_s in ways.items():
                with TritonServer(tiny.repository, venv=ROOT / ".venv-triton") as server, ended_at(late_s):
                    found[name] += count(tiny, server, options.seconds)
    figures = {name: {"crashes": 0, **dict(counts)} for name, counts in found.items()}
    record("late_requests", "python -m tests.benchmarks.late_requests", figures)


if __name__ == "__main__":
    main()
