"""Does a stream go as fast as its slowest stage alone? ``python -m tests.benchmarks.stream``.

The server is 40 ms away: with 16 requests on the network the device graph is the slowest stage, with 4 the network is.
Stages alone, both at once without a stream around them (they share this machine's cores, with
the server too), and the whole stream are measured in turns: with a source that gives frames as fast as they are taken,
and with one that goes on by itself at a camera's pace. The client's CPU time for a frame, and how often one of its
threads had to wait, tell what the stream itself costs whatever else the machine does.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from dcp_sdk import Arrays, Frame, FrameSource, Manifest, PrivateClient, Timeouts
from dcp_sdk.calls.stages import Request
from dcp_sdk.deadline import Deadline
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.benchmarks.record import record
from tests.e2e.link import link
from tests.tiny import ROOT, SHIPPED

ROUND_TRIP_MS, MBIT_S = 40.0, 1000.0
PICTURE = (480, 640, 3)
FILL = 32
"""Answers that a stream gives before its rate is taken: until then its stages are not all at work."""


class Paced(FrameSource):
    """A camera that shows a new frame at a steady pace, whether somebody looks or not."""

    live = True

    def __init__(self, pictures: Sequence[Image], frames_per_s: float, count: int) -> None:
        self._pictures, self._interval_s, self._count = pictures, 1 / frames_per_s, count

    def __iter__(self) -> Iterator[Frame]:
        start, index = time.monotonic(), 0
        while index < self._count:
            time.sleep(max(0.0, start + index * self._interval_s - time.monotonic()))
            index = max(index, int((time.monotonic() - start) / self._interval_s))  # what passed meanwhile is gone
            yield Frame(self._pictures[index % len(self._pictures)], time.monotonic(), "paced", index)
            index += 1


def rate_of_stream(client: PrivateClient, source: FrameSource, in_flight: int) -> float:
    """Count answers in a second, once the stages are all at work."""
    with closing(client.stream(source, in_flight=in_flight)) as stream:
        times = [time.perf_counter() for _ in stream]
    return (len(times) - 1 - FILL) / (times[-1] - times[FILL])


def rate_alone(work: Callable[[Request], None], requests: list[Request], *, at_once: int = 1) -> float:
    """Send requests through one stage, ``at_once`` of them at a time; how many it takes in a second."""
    with ThreadPoolExecutor(at_once) as threads:
        start = time.perf_counter()
        list(threads.map(work, requests))
        return len(requests) / (time.perf_counter() - start)


class Meter:
    """What was measured, by name: once in each round."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self.per_second: dict[str, list[float]] = defaultdict(list)
        self.cpu_ms: dict[str, list[float]] = defaultdict(list)
        """Of this process, for a frame."""
        self.waits: dict[str, list[float]] = defaultdict(list)
        """How often a thread of this process had to wait, for a frame."""

    def take(self, name: str, rate: Callable[[], float]) -> None:
        """Measure once."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        self.per_second[name].append(rate())
        after = resource.getrusage(resource.RUSAGE_SELF)
        spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.cpu_ms[name].append(1000 * spent_s / self._frames)
        self.waits[name].append((after.ru_nvcsw - before.ru_nvcsw) / self._frames)


def measure(client: PrivateClient, *, frames: int, rounds: int, in_flight: int, frames_per_s: float) -> dict[str, Any]:
    """Measure all in turns."""
    random = np.random.default_rng(0)
    pictures: list[Image] = list(random.integers(0, 256, (8, *PICTURE), np.uint8))
    many = [pictures[index % len(pictures)] for index in range(frames)]
    meter = Meter(frames)

    def anew() -> list[Request]:
        deadline = Deadline(client.timeouts.predict_s)
        return [Request(deadline, frames=[Frame(picture, time.monotonic(), "alone")]) for picture in many]

    def device() -> float:
        return rate_alone(client._stages.obfuscate, anew())

    computed = anew()
    rate_alone(client._stages.obfuscate, computed)

    def network() -> float:
        return rate_alone(client._stages.ask, computed, at_once=in_flight)

    def together() -> float:
        with ThreadPoolExecutor(2) as threads:
            return min(rate.result() for rate in (threads.submit(device), threads.submit(network)))

    for _ in range(rounds):
        meter.take("device", device)
        meter.take("network", network)
        meter.take("together", together)
        meter.take("stream", lambda: rate_of_stream(client, Arrays(many), in_flight))
        meter.take("camera", lambda: rate_of_stream(client, Paced(pictures, frames_per_s, frames), in_flight))
    rates = meter.per_second
    slowest = [min(pair) for pair in zip(rates["device"], rates["network"], strict=True)]
    ratios, to_together = (_ratios(rates["stream"], others) for others in (slowest, rates["together"]))
    return {
        "frames": frames,
        "rounds": rounds,
        "in_flight": in_flight,
        "slowest_stage": min(("device", "network"), key=lambda name: statistics.median(rates[name])),
        "per_second_p50": _medians(rates),
        "cpu_ms_per_frame_p50": _medians(meter.cpu_ms),
        "waits_per_frame_p50": _medians(meter.waits),
        "stream_to_slowest_stage": ratios,
        "stream_to_slowest_stage_p50": statistics.median(ratios),
        "stream_to_both_stages_together_p50": statistics.median(to_together),
        "camera_frames_per_s": frames_per_s,
        "stream_to_camera_p50": round(statistics.median(rates["camera"]) / frames_per_s, 3),
        "camera_frames_dropped": client.stats().frames_dropped,
    }


def _medians(found: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def _ratios(some: list[float], others: list[float]) -> list[float]:
    return [round(one / other, 3) for one, other in zip(some, others, strict=True)]


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[16, 4])
    options = parser.parse_args()
    models = (Manifest.load(options.bundle).contract.head.model,)
    with TritonServer(ROOT / "triton_models", models=models, venv=ROOT / ".venv-triton") as server:
        target = int(server.grpc_address.rpartition(":")[2])
        with link(target, mbit_s=MBIT_S, round_trip_ms=ROUND_TRIP_MS) as port:
            timeouts = Timeouts(predict_s=3600)  # requests of a stage alone are made long before it takes them
            address = f"grpc://127.0.0.1:{port}"
            with PrivateClient(options.bundle, address, device="cpu", threads=1, timeouts=timeouts) as client:
                cases = [
                    measure(client, frames=options.frames, rounds=options.rounds, in_flight=many, frames_per_s=30.0)
                    for many in options.in_flight
                ]
    figures = {"bundle": options.bundle.name, "round_trip_ms": ROUND_TRIP_MS, "cases": cases}
    record("stream", "python -m tests.benchmarks.stream", figures)


if __name__ == "__main__":
    main()
