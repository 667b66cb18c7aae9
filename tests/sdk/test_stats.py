"""What a client tells about itself is exact, whoever asks it from however many threads."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from dcp_sdk import (
    CircuitBreaker,
    DCPError,
    FrameError,
    PrivateClient,
    Retries,
    ServerRejected,
    ServerUnavailable,
    Stats,
    Timings,
)
from dcp_sdk.obfuscate import Payload
from dcp_sdk.preprocess import Image
from dcp_sdk.stats import Counters
from tests.sdk.helpers import Recorder, eventually
from tests.tiny import Tiny

THREADS, CALLS = 16, 40


class Moody(Recorder):
    """Fails as ``mood`` says for the number of the request."""

    def __init__(self, repository: Path, mood: Callable[[int], Exception | None]) -> None:
        super().__init__(repository)
        self._mood, self._numbers = mood, itertools.count()

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        self.sent.append(payload)
        if (error := self._mood(next(self._numbers))) is not None:
            raise error
        return self._head.infer(payload, timeout_s)


def test_counts_are_exact_under_sixteen_threads(tiny: Tiny, picture: Image) -> None:
    def mood(number: int) -> Exception | None:
        return ServerUnavailable("reset") if number % 3 == 0 else ServerRejected("no") if number % 7 == 0 else None

    transport, outcomes = Moody(tiny.repository, mood), Counter[str]()
    together = threading.Barrier(THREADS)

    def work(thread: int) -> Counter[str]:
        together.wait()
        seen: Counter[str] = Counter()
        for call in range(CALLS):
            try:
                if call % 5 == 4:
                    seen["answer"] += len(client.predict_batch([picture] * 3))
                else:
                    client.predict(picture if call % 9 else picture[..., 0])
                    seen["answer"] += 1
            except DCPError as error:
                seen[type(error).__name__] += 1
            client.stats()  # asked for all the time
        return seen

    options: dict[str, Any] = {
        "retries": Retries(attempts=2, first_wait_s=0.001, longest_wait_s=0.001),
        "breaker": CircuitBreaker(failures=10**6),
    }
    with PrivateClient(tiny.bundle, transport=transport, device="cpu", threads=1, **options) as client:
        with ThreadPoolExecutor(THREADS) as pool:
            for seen in pool.map(work, range(THREADS)):
                outcomes += seen
        stats = client.stats()
    answers = outcomes.pop("answer")
    assert stats.predictions == answers
    assert stats.failures == dict(outcomes)
    assert set(stats.failures) == {"FrameError", "ServerUnavailable", "ServerRejected"}
    assert stats.sends == len(transport.sent)
    assert stats.bytes_sent == sum(tensor.nbytes for payload in transport.sent for tensor in payload)
    failed = sum(1 for number in range(len(transport.sent)) if number % 3 == 0)
    assert stats.retries == failed - stats.failures["ServerUnavailable"], "the second attempt is the last"
    hidden = failed - 2 * stats.failures["ServerUnavailable"]
    assert 0 < stats.hidden_failures["ServerUnavailable"] <= hidden, "but those after which a retry was refused"
    assert (stats.failovers, stats.answered_locally, stats.frames_taken) == (0, 0, 0)


def test_times_of_the_last_requests(tiny: Tiny, picture: Image) -> None:
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        assert client.stats().stages == {}
        client.predict(picture)
        stages = client.stats().stages
        assert {f"{name}_ms" for name in stages} == {field.name for field in dataclasses.fields(Timings)}
        assert all(0 <= stage.p50_ms == stage.p99_ms for stage in stages.values())


def test_old_times_are_forgotten() -> None:
    counters = Counters()
    names = [field.name for field in dataclasses.fields(Timings)]
    for number in range(5000):
        counters.answered(Timings(**dict.fromkeys(names, float(number))), pictures=1, locally=False)
    stats = counters.read({})
    assert stats.predictions == 5000
    assert stats.stages["network"].p50_ms == pytest.approx(4999 - 1023 / 2)
    assert stats.stages["network"].p99_ms > 4985


def test_failovers_and_breakers(tiny: Tiny, picture: Image, tmp_path: Path) -> None:
    first, second = f"memory://{tmp_path / 'first'}", f"memory://{tiny.repository}"
    options: dict[str, Any] = {"retries": Retries.none(), "breaker": CircuitBreaker(failures=2, pause_s=0.3)}
    with PrivateClient(tiny.bundle, [first, second], device="cpu", **options) as client:  # a failure of the first
        assert client.stats().breakers == {first: "closed", second: "closed"}
        assert client.predict(picture).server == second
        assert client.stats().breakers == {first: "open", second: "closed"}
        time.sleep(0.4)
        assert client.stats().breakers[first] == "half-open"
        assert client.predict(picture).server == second, "no call is the trial"
        assert eventually(lambda: client.stats().breakers[first] == "open")  # the trial failed
        shutil.copytree(tiny.repository, tmp_path / "first")
        while client.predict(picture).server != first:
            time.sleep(0.01)
        stats = client.stats()
    assert stats.breakers == {first: "closed", second: "closed"}
    assert (stats.failovers, stats.sends, stats.retries) == (stats.predictions - 1, stats.predictions, 0)
    assert stats.failures == {}
    assert stats.hidden_failures == {"ServerUnavailable": 1, "CircuitOpen": stats.predictions - 2}


def test_a_refusal_of_the_guard() -> None:
    assert _stats(failures={"PrivacyGuardError": 2}).guard_refusals == 2
    assert _stats(failures={}).guard_refusals == 0


def _stats(**changes: Any) -> Stats:
    return dataclasses.replace(Counters().read({}), **changes)


def test_a_stream_counts_its_frames(tiny: Tiny, picture: Image) -> None:
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        assert len(list(client.stream([picture] * 7))) == 7
        with pytest.raises(FrameError):
            list(client.stream([picture, picture[..., 0]]))
        stats = client.stats()
    assert (stats.predictions, stats.frames_taken, stats.frames_dropped) == (8, 8, 0)
    assert stats.failures == {"FrameError": 1}
    assert 1 <= stats.deepest_queue <= 5
