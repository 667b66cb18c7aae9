"""From one measured core to fleets of devices: ``python -m tests.benchmarks.fleet``, after ``serving``.

A simulation (SimPy) of pods that batch as Triton does, with the processor time of ``results/serving.json``. It answers
what cannot be measured here: how many cores a fleet needs, and what its devices see while a pod is away. Its
assumptions are part of the record.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from dcp_sdk import Timeouts
from tests.benchmarks.record import RESULTS, record

FAILOVER_MS = 5.0
"""What a device loses on a pod that is away before it asks the next."""

LOAD = 0.7
"""Share of what a core can do at most that a pod is given: queues grow without end where it is all."""

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Core:
    """Processor time of one pod of one core: ``per_batch_ms + n * per_request_ms`` for a batch of n."""

    per_batch_ms: float
    per_request_ms: float
    max_batch_size: int = 64

    @classmethod
    def fit(cls, steps: list[dict[str, Any]], max_batch_size: int = 64) -> Core:
        """Read it off the cheapest and the dearest step: full batches when overloaded, single requests when idle."""
        spent = [float(step["server_cpu_ms_per_answer"]) for step in steps]
        alone, full = max(spent), min(spent)
        per_batch = (alone - full) / (1 - 1 / max_batch_size)
        return cls(round(per_batch, 4), round(alone - per_batch, 4), max_batch_size)

    def batch_s(self, count: int) -> float:
        """Seconds for a batch."""
        return (self.per_batch_ms + count * self.per_request_ms) / 1000

    @property
    def most_per_s(self) -> float:
        """Requests per second with nothing but full batches."""
        return self.max_batch_size / self.batch_s(self.max_batch_size)


_PATIENCE_S = Timeouts().predict_s


@dataclass
class Tally:
    """What the devices saw."""

    latencies_ms: list[float] = field(default_factory=list)
    waited_ms: list[float] = field(default_factory=list)
    """In the queue: what the autoscaler follows."""
    late: int = 0
    """Answers that came when the device no longer waited."""
    failovers: int = 0

    def figures(self) -> dict[str, Any]:
        """Percentiles and counts."""
        p50, p99 = np.percentile(self.latencies_ms or [float("inf")], (50, 99)).round(1).tolist()
        return {
            "p50_ms": p50,
            "p99_ms": p99,
            "mean_wait_ms": round(float(np.mean(self.waited_ms or [float("inf")])), 1),
            "answered": len(self.latencies_ms),
            "late": self.late,
            "failovers": self.failovers,
        }


class Pod:
    """Takes what waits as one batch as soon as it is free."""

    def __init__(self, environment: simpy.Environment, core: Core, tally: Tally) -> None:
        self._environment, self._core, self._tally = environment, core, tally
        self._queue: deque[float] = deque()
        self._wake = environment.event()
        self.away = False
        environment.process(self._work())

    def ask(self, asked_at: float) -> None:
        """Queue a request that its device sent at ``asked_at``."""
        self._queue.append(asked_at)
        if not self._wake.triggered:
            self._wake.succeed()

    def _work(self) -> Events:
        while True:
            if not self._queue:
                self._wake = self._environment.event()
                yield self._wake
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._core.max_batch_size))]
            self._tally.waited_ms += [1000 * (self._environment.now - asked_at) for asked_at in batch]
            yield self._environment.timeout(self._core.batch_s(len(batch)))
            for asked_at in batch:
                took_s = self._environment.now - asked_at
                self._tally.latencies_ms.append(1000 * took_s)
                self._tally.late += took_s > _PATIENCE_S


def simulate(core: Core, rate_per_s: float, *, pods: int = 1, away: int = 0, seconds: float = 30) -> dict[str, Any]:
    """Let Poisson arrivals meet ``pods`` pods, of which ``away`` are away all the time."""
    generator, environment, tally = random.Random(0), simpy.Environment(), Tally()
    group = [Pod(environment, core, tally) for _ in range(pods)]
    for pod in group[:away]:
        pod.away = True

    def one() -> Events:
        asked_at = environment.now
        for pod in generator.sample(group, len(group)):
            if not pod.away:
                pod.ask(asked_at)
                return
            tally.failovers += 1
            yield environment.timeout(FAILOVER_MS / 1000)

    def arrivals() -> Events:
        while True:
            yield environment.timeout(generator.expovariate(rate_per_s))
            environment.process(one())

    environment.process(arrivals())
    environment.run(until=seconds)
    return {"rate_per_s": round(rate_per_s, 1), "pods": pods, "away": away, **tally.figures()}


def size(core: Core, rate_per_pod: float, devices: int, *, every_s: float, peak: float) -> dict[str, Any]:
    """Say how many pods of one core a fleet needs at its peak, with one more so that one may be away."""
    rate = devices * peak / every_s
    pods = max(2, math.ceil(rate / rate_per_pod) + 1)
    # Pods are alike, and devices choose at random: a sample of at most ten pods stands for all.
    sample = min(pods, 10)
    return {
        "devices": devices,
        "requests_per_s_at_peak": round(rate, 1),
        "pods": pods,
        "all_there": simulate(core, rate / pods * sample, pods=sample, seconds=10),
        "one_away": simulate(core, rate / pods * sample, pods=sample, away=1, seconds=10),
    }


def main() -> None:
    """Calibrate, simulate, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every-s", type=float, default=10.0, help="seconds between two requests of one device")
    parser.add_argument("--peak", type=float, default=3.0, help="busiest moment against the mean")
    options = parser.parse_args()
    measured = json.loads((RESULTS / "serving.json").read_text())
    core = Core.fit(measured["steps"]["head"])
    curve = [simulate(core, share * core.most_per_s) for share in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.1)]
    # The knee is that of a server with all cores of its machine.
    rate_per_pod = round(min(measured["summary"]["head"]["knee_per_s"], LOAD * core.most_per_s), 1)
    fleets = [
        size(core, rate_per_pod, devices, every_s=options.every_s, peak=options.peak)
        for devices in (1_000, 10_000, 100_000, 1_000_000)
    ]
    record(
        "fleet",
        "python -m tests.benchmarks.fleet",
        {
            "assumptions": [
                f"a batch of n takes {core.per_batch_ms} + n x {core.per_request_ms} ms of one core, from serving.json",
                "a pod has one core of its own; nothing else runs there",
                f"no pod is given more than {LOAD:g} of that, or than the measured knee: {rate_per_pod:g} per second",
                f"each device asks every {options.every_s:g} s on average, independently of the others",
                f"the busiest moment has {options.peak:g} times the mean",
                "devices choose among the pods at random",
                f"a pod that is away costs its caller {FAILOVER_MS:g} ms, then the next one is asked",
                "the network between device and pod, and the device's own work, come on top",
                f"a device waits for {_PATIENCE_S:g} s, and a pod works on what nobody waits for any more, too",
            ],
            "core": {"per_batch_ms": core.per_batch_ms, "per_request_ms": core.per_request_ms},
            "most_per_s": round(core.most_per_s, 1),
            "curve_of_one_pod": curve,
            "rate_per_pod": rate_per_pod,
            "devices_per_core": math.floor(rate_per_pod * options.every_s / options.peak),
            "fleets": fleets,
        },
    )


if __name__ == "__main__":
    main()
