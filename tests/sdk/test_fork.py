"""A client belongs to the process that made it: a forked one gets an error at once, and can close nothing of it.

This module is also the program that forks, a fresh one for each kind of server: gRPC's own handlers crash forked
processes, whatever these do, unless ``GRPC_ENABLE_FORK_SUPPORT=0`` stands before it is loaded.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from dcp_sdk import AsyncPrivateClient, PrivateClient, Timeouts
from dcp_sdk.runtime import _WATCHDOG
from tests.tiny import ROOT, Tiny

_PATIENCE_S = 10.0
"""For a process that should answer at once; one that hangs is ended then."""
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
OTHER = PICTURE[::-1].copy()

Uses = dict[str, Callable[[], object]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    "scheme", ["memory", pytest.param("http", marks=pytest.mark.triton), pytest.param("grpc", marks=pytest.mark.triton)]
)
def test_a_client_is_of_one_process(scheme: str, tiny: Tiny, request: pytest.FixtureRequest) -> None:
    address = f"memory://{tiny.repository}"
    if scheme != "memory":
        address = getattr(request.getfixturevalue("tiny_server"), f"{scheme}_address")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.sdk.test_fork", tiny.bundle, address],
        cwd=ROOT,
        env=os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    process, said = json.loads(done.stdout)
    refusal = (
        f"ConfigError: expected a client of this process, got one that process {process} made. "
        'Make the client in the process that uses it (multiprocessing: start method "spawn").'
    )
    assert said.pop("make its own", "no") in ("no", "yes")
    silent = {"close", "leave its block", "close the stream", "close async"}
    assert said == {name: "None" if name in silent else refusal for name in said}
    assert len(said) == 20


def forked(work: Callable[[], object]) -> str:
    """Do ``work`` in a forked process: what it returned, or the error that ended it, as text."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            said = str(work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], _PATIENCE_S)
    said = os.read(reading, 1 << 16).decode() if ready else "nothing: it hangs"
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return said


@contextmanager
def held(lock: threading.RLock) -> Iterator[None]:
    """Let another thread hold it."""
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holding.set()
            done.wait(2 * _PATIENCE_S)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(_PATIENCE_S)
    try:
        yield
    finally:
        done.set()
        thread.join()


def outcomes(uses: Uses) -> dict[str, str]:
    return {name: forked(use) for name, use in uses.items()}


def with_client(bundle: str, address: str) -> dict[str, str]:
    """Fork while a client, and a stream of it, is open; afterwards the parent's must work as before."""

    def leave() -> None:
        with client:
            pass

    def own() -> str:
        with PrivateClient(bundle, address, device="cpu", threads=1) as mine:
            return mine.predict(PICTURE).label

    with PrivateClient(bundle, address, device="cpu", timeouts=Timeouts(predict_s=30)) as client:
        expected = client.predict(PICTURE).probabilities
        stream = client.stream([PICTURE] * 3)
        next(stream)
        uses: Uses = {
            "predict": lambda: client.predict(OTHER),
            "predict without a camera": client.predict,
            "predict_batch": lambda: client.predict_batch([OTHER]),
            "stream": lambda: next(client.stream([OTHER])),
            "stats": client.stats,
            "go on with the stream": lambda: next(stream),
            "close the stream": stream.close,
            "close": client.close,
            "leave its block": leave,
        }
        said = outcomes(uses)
        with client._gate._changed, client._counters._lock:  # nobody is there to release them in the child
            said |= {f"{name}, locked": what for name, what in outcomes(uses).items() if what != "None"}
        if not address.startswith("grpc"):  # gRPC itself does not start again in a forked process
            with held(_WATCHDOG._lock):  # by a thread of another call, which the child does not have
                said["make its own"] = forked(own)
        assert [item.probabilities for item in stream] == [expected] * 2, "the parent's goes on"
        assert client.predict(PICTURE).probabilities == expected
    return said


def with_async_client(bundle: str, address: str) -> dict[str, str]:
    client = AsyncPrivateClient(bundle, address, device="cpu", timeouts=Timeouts(predict_s=30))

    async def stream() -> object:
        return [item async for item in client.stream([OTHER])]

    async def stats() -> object:
        return client.stats()

    def in_new_loop(work: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
        return lambda: asyncio.run(work())

    with asyncio.Runner() as runner:
        runner.run(client.open())
        expected = runner.run(client.predict(PICTURE)).probabilities
        said = outcomes(
            {
                "predict async": in_new_loop(lambda: client.predict(OTHER)),
                "predict_batch async": in_new_loop(lambda: client.predict_batch([OTHER])),
                "stream async": in_new_loop(stream),
                "stats async": in_new_loop(stats),
                "close async": in_new_loop(client.close),
            }
        )
        assert runner.run(client.predict(PICTURE)).probabilities == expected
        runner.run(client.close())
    return said


if __name__ == "__main__":
    print(json.dumps([os.getpid(), with_client(*sys.argv[1:]) | with_async_client(*sys.argv[1:])]))  # noqa: T201
