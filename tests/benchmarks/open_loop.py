"""Open-loop load from a process of its own: requests leave at random times, whether or not earlier ones were answered.

A client that waits for its answer before it asks again slows down with the server, and never sees the queue that many
devices would form. Here a latency runs from the moment at which a request *should* have left. Not a benchmark by
itself: ``serving.py`` starts it, through :func:`drive`.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

GENERATORS = 2
"""Processes that share the rate: the sum of Poisson streams is one, and none of them is the bottleneck."""

LONGEST_S = 5.0
"""An answer that takes longer counts as none."""

Ask = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Target:
    """Whom to ask, and what."""

    address: str
    """``grpc://HOST:PORT`` of a Triton, or an HTTP address that takes the body as it is."""
    body: bytes
    """A serialised ``ModelInferRequest``, or the HTTP body."""


@dataclass(frozen=True)
class Outcome:
    """What came of the requests of one step."""

    latencies_ms: tuple[float, ...]
    """Of those that were answered, by the time at which they should have left."""
    failures: dict[str, int]
    """By kind."""


def drive(target: Target, rate_per_s: float, seconds: float, *, seed: int = 0) -> Outcome:
    """Send Poisson arrivals from :data:`GENERATORS` processes, and wait for all answers.

    Args:
        target: Whom to ask.
        rate_per_s: Requests per second, of all processes together.
        seconds: How long.
        seed: Of the random gaps.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job")
        job.write_bytes(pickle.dumps((target, rate_per_s / GENERATORS, seconds)))
        command = [sys.executable, "-m", __name__, str(job)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [
            subprocess.Popen([*command, str(seed * GENERATORS + number)], **pipes) for number in range(GENERATORS)
        ]
        for process in processes:  # all have started up and connected before the clock runs
            process.stdout.readline()
        start = time.time() + 0.2
        for process in processes:
            process.stdin.write(f"{start}\n")
            process.stdin.flush()
        parts = [json.loads(process.communicate(timeout=seconds + 60)[0]) for process in processes]
    failures: Counter[str] = Counter()
    for part in parts:
        failures.update(part["failures"])
    return Outcome(tuple(latency for part in parts for latency in part["latencies_ms"]), dict(failures))


async def _send(ask: Ask, gaps_s: Sequence[float]) -> Outcome:
    latencies: list[float] = []
    failures: Counter[str] = Counter()
    await asyncio.gather(*(ask() for _ in range(4)), return_exceptions=True)  # connect
    print("ready", flush=True)
    due = float(await asyncio.to_thread(sys.stdin.readline))

    async def one(due: float) -> None:
        try:
            await asyncio.wait_for(ask(), LONGEST_S)
            latencies.append((time.time() - due) * 1000)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            failures[type(error).__name__] += 1

    tasks = []
    for gap in gaps_s:
        due += gap
        await asyncio.sleep(max(0.0, due - time.time()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return Outcome(tuple(latencies), dict(failures))


async def _run(target: Target, rate_per_s: float, seconds: float, seed: int) -> Outcome:
    generator = np.random.default_rng(seed)
    gaps = generator.exponential(1 / rate_per_s, max(1, round(rate_per_s * seconds))).tolist()
    if target.address.startswith("grpc://"):
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        request = service_pb2.ModelInferRequest.FromString(target.body)
        async with grpc.aio.insecure_channel(target.address.removeprefix("grpc://")) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return await _send(lambda: stub.ModelInfer(request), gaps)
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post() -> None:
            async with session.post(target.address, data=target.body) as answer:
                answer.raise_for_status()
                await answer.read()

        return await _send(post, gaps)


if __name__ == "__main__":
    outcome = asyncio.run(_run(*pickle.loads(Path(sys.argv[1]).read_bytes()), seed=int(sys.argv[2])))
    print(json.dumps(asdict(outcome)))
