"""Threads that predict while the server is killed and started again: ``python -m tests.benchmarks.soak``.

Counts wrong answers, calls beyond their deadline, the time until the first answer after a restart, and memory; then
freezes the server, so that calls can only end by their deadline, and measures by how much they miss it. Another process
sleeps all the while, and tells for how long the machine let it wait beyond that: no call can be more punctual.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dcp_sdk import CircuitBreaker, DCPError, PrivateClient, ServerTimeout, Timeouts
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.tiny import ROOT, SIZE, write_tiny

SLACK_S = 0.1
"""A call that takes longer than its deadline and this is counted as late."""
_MEMORY_SAMPLES = 200
"""Few, because they lie in the memory that they measure."""


@dataclass
class Tally:
    """What happened, by all threads together."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    late: int = 0
    largest_overshoot_s: float = 0.0
    resident_mib: list[tuple[int, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    last_answer: float = 0.0

    @property
    def calls(self) -> int:
        """How many have ended."""
        return sum(self.outcomes.values())

    def add(self, outcome: str, overshoot_s: float, *, wrong: bool = False) -> None:
        """Count one call."""
        with self.lock:
            self.outcomes[outcome] += 1
            self.wrong += wrong
            self.late += overshoot_s > SLACK_S
            self.largest_overshoot_s = max(self.largest_overshoot_s, overshoot_s)
            if outcome == "answer":
                self.last_answer = time.monotonic()


def soak(*, threads: int, calls: int, kills: int, scheme: str, predict_s: float = 2.0) -> dict[str, Any]:
    """Run it, and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_tiny(Path(folder))
        random = np.random.default_rng(0)
        pictures = list(random.integers(0, 256, (8, SIZE, SIZE, 3), np.uint8))
        with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu", threads=1) as client:
            expected = [np.array(list(client.predict(picture).probabilities.values())) for picture in pictures]
        with TritonServer(tiny.repository, venv=ROOT / ".venv-triton") as server, _sleeper() as machine:
            address = server.grpc_address if scheme == "grpc" else server.http_address
            timeouts = Timeouts(connect_s=10, predict_s=predict_s)
            with PrivateClient(tiny.bundle, address, device="cpu", threads=1, timeouts=timeouts) as client:
                figures = _run(client, server, pictures, expected, threads=threads, calls=calls, kills=kills)
            figures["frozen_server"] = _frozen(tiny.bundle, server, address, pictures[0], threads)
        return figures | {"machine": machine}


def _run(
    client: PrivateClient,
    server: TritonServer,
    pictures: list[Image],
    expected: list[np.ndarray],
    *,
    threads: int,
    calls: int,
    kills: int,
) -> dict[str, Any]:
    tally, done = Tally(), threading.Event()
    workers = [
        threading.Thread(target=_work, args=(client, pictures, expected, tally, done, number))
        for number in range(threads)
    ]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    recoveries_s = []
    for kill in range(kills + 1):
        while tally.calls < calls * (kill + 1) / (kills + 1):
            if tally.calls >= calls * len(tally.resident_mib) / _MEMORY_SAMPLES:
                tally.resident_mib.append((tally.calls, _resident_mib()))
            time.sleep(0.05)
        if kill < kills:
            server.kill()  # SIGKILL, to the whole process group
            server.start()
            recoveries_s.append(_next_answer_s(tally))
    done.set()
    for worker in workers:
        worker.join()
    return _figures(tally, recoveries_s, time.monotonic() - start)


def _work(
    client: PrivateClient,
    pictures: list[Image],
    expected: list[np.ndarray],
    tally: Tally,
    done: threading.Event,
    number: int,
) -> None:
    limit_s = client.timeouts.predict_s
    while not done.is_set():
        number = (number + 1) % len(pictures)
        start = time.monotonic()
        try:
            values = list(client.predict(pictures[number]).probabilities.values())
        except DCPError as error:
            tally.add(type(error).__name__, time.monotonic() - start - limit_s)
            time.sleep(0.01)  # a device does not ask in a tight loop either
        else:
            wrong = not np.allclose(values, expected[number], rtol=0, atol=1e-6)
            tally.add("answer", time.monotonic() - start - limit_s, wrong=wrong)


def _frozen(bundle: Path, server: TritonServer, address: str, picture: Image, threads: int) -> dict[str, Any]:
    """Ask a server that takes connections and never answers; nothing is retried, no circuit opens."""
    options: dict[str, Any] = {"device": "cpu", "threads": 1, "breaker": CircuitBreaker(failures=1 << 30)}
    with PrivateClient(bundle, address, timeouts=Timeouts(connect_s=10, predict_s=0.5), **options) as client:
        client.predict(picture)
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGSTOP)

        def overshoot_ms(_: int) -> float:
            start = time.monotonic()
            with contextlib.suppress(ServerTimeout):
                client.predict(picture)
            return (time.monotonic() - start - client.timeouts.predict_s) * 1000

        try:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(overshoot_ms, range(8 * threads)))
        finally:
            os.killpg(server.pid, signal.SIGCONT)
    p50, p95, most = np.percentile(found, (50, 95, 100)).round(1).tolist()
    return {"calls": len(found), "overshoot_ms": {"p50": p50, "p95": p95, "max": most}}


_SLEEPER = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: exit())
late_ms = []
try:
    while True:
        start = time.monotonic()
        time.sleep(0.01)
        late_ms.append(1000 * (time.monotonic() - start) - 10)
finally:
    print(max(late_ms), sum(late > 100 for late in late_ms))
"""


@contextlib.contextmanager
def _sleeper() -> Iterator[dict[str, Any]]:
    """Let a process sleep for 10 ms again and again; what it found stands in the dictionary after the block."""
    found: dict[str, Any] = {}
    with subprocess.Popen([sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield found
        finally:
            process.terminate()
            said, _ = process.communicate()
    most, often = said.split()
    found |= {"largest_oversleep_ms": round(float(most), 1), "oversleeps_beyond_100_ms": int(often)}


def _next_answer_s(tally: Tally, longest_s: float = 30) -> float:
    """Seconds from now until some call is answered."""
    start = time.monotonic()
    while tally.last_answer < start and time.monotonic() - start < longest_s:
        time.sleep(0.005)
    return time.monotonic() - start


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _figures(tally: Tally, recoveries_s: list[float], seconds: float) -> dict[str, Any]:
    # In the first half each thread's heap and each cache grows to its size.
    steady = [(count, mib) for count, mib in tally.resident_mib if count >= tally.calls / 2]
    tenths = np.linspace(0, len(tally.resident_mib) - 1, 11).astype(int)
    slope = np.polyfit(*zip(*steady, strict=True), 1)[0] if len(steady) > 2 else 0.0
    return {
        "calls": tally.calls,
        "calls_per_s": round(tally.calls / seconds, 1),
        "outcomes": dict(tally.outcomes.most_common()),
        "wrong_answers": tally.wrong,
        f"later_than_deadline_and_{SLACK_S * 1000:.0f}_ms": tally.late,
        "largest_overshoot_ms": round(tally.largest_overshoot_s * 1000, 1),
        "restarts": len(recoveries_s),
        "first_answer_after_restart_s": {
            "p50": round(float(np.median(recoveries_s)), 3) if recoveries_s else None,
            "max": round(max(recoveries_s), 3) if recoveries_s else None,
        },
        "resident_mib_at_each_tenth": [round(tally.resident_mib[at][1], 1) for at in tenths],
        "resident_kib_per_1000_calls_second_half": round(float(slope) * 1024 * 1000, 1),
    }


def main() -> None:
    """Measure, and record."""
    from tests.benchmarks.record import record  # late: it needs torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--scheme", choices=["grpc", "http"], default="grpc")
    options = parser.parse_args()
    figures = soak(threads=options.threads, calls=options.calls, kills=options.kills, scheme=options.scheme)
    command = (
        f"python -m tests.benchmarks.soak --threads {options.threads} --calls {options.calls} "
        f"--kills {options.kills} --scheme {options.scheme}"
    )
    record(f"soak_{options.scheme}", command, {"threads": options.threads, **figures})


if __name__ == "__main__":
    main()
