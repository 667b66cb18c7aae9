"""A server changes under load, and no device notices: ``python -m tests.benchmarks.rollout``.

* roll-out: a new version of a head is loaded, rolled back, loaded again, and the old one retired, while devices of both
  contracts predict;
* rolling restart: three servers are stopped and started in turn behind the client's failover;
* poison: one request in eight breaks the contract, in the same dynamic batches as good ones.

Counts failed calls and answers of a wrong head. Every answer is compared with the head's in this process.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from dcp_sdk import DCPError, PrivateClient, Timeouts
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from dcp_sdk.serving.repository import ModelRepository
from tests.tiny import ADMIN_KEY, ADMIN_OVER_GRPC, ROOT, SIZE, Tiny, payload, write_retrained, write_tiny

MODEL = "task_head"
VENV = ROOT / ".venv-triton"
PATIENCE = Timeouts(connect_s=10, predict_s=10)  # this is about failures; how late an answer is, serving.py measures


class Devices:
    """Threads that predict with one bundle, without a pause, and compare every answer."""

    def __init__(self, pair: Tiny, addresses: list[str], pictures: list[Image], threads: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._pictures, self._expected = pictures, answers(pair, pictures)
        self._client = PrivateClient(pair.bundle, addresses, device="cpu", threads=1, timeouts=PATIENCE)
        self._lock, self._done = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]

    @property
    def answered(self) -> int:
        """Right answers so far."""
        return self.outcomes["answer"]

    def start(self) -> None:
        """Begin to predict."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the calls under way, and close the client."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def wait_for(self, calls: int) -> None:
        """Let that many more calls be answered."""
        target, deadline = self.answered + calls, time.monotonic() + 120
        while self.answered < target and time.monotonic() < deadline:
            time.sleep(0.005)

    def _work(self, number: int) -> None:
        while not self._done.is_set():
            number = (number + 1) % len(self._pictures)
            try:
                found = list(self._client.predict(self._pictures[number]).probabilities.values())
                right = np.allclose(found, self._expected[number], rtol=0, atol=1e-6)
                outcome = "answer" if right else "answer of a wrong head"
            except DCPError as error:
                outcome = type(error).__name__
            with self._lock:
                self.outcomes[outcome] += 1


@contextmanager
def predicting(*arguments: Any) -> Iterator[Devices]:
    """Run :class:`Devices` for the length of a ``with`` block."""
    devices = Devices(*arguments)
    devices.start()
    try:
        yield devices
    finally:
        devices.stop()


def answers(pair: Tiny, pictures: list[Image]) -> list[list[float]]:
    """Ask the pair's head in this process."""
    with PrivateClient(pair.bundle, f"memory://{pair.repository}", device="cpu", threads=1) as client:
        return [list(client.predict(picture).probabilities.values()) for picture in pictures]


def roll_out(folder: Path, pictures: list[Image], *, rounds: int, calls: int, threads: int) -> dict[str, Any]:
    """Load version 2 beside version 1, roll back, load again, retire version 1, and so on with the next."""
    old = write_tiny(folder)
    repository = ModelRepository(old.repository)
    totals: Counter[str] = Counter()
    with TritonServer(old.repository, venv=VENV, admin_key=ADMIN_KEY) as server, _control(server) as control:
        for number in range(1, rounds + 1):
            with predicting(old, [server.grpc_address], pictures, threads) as of_old:
                of_old.wait_for(calls)
                new = write_retrained(old, folder / f"bundle-{number}", seed=number)
                versions = old.manifest.contract.head.version, new.manifest.contract.head.version
                for again in (False, True):
                    repository.select(MODEL, versions)
                    control.load_model(MODEL, headers=ADMIN_OVER_GRPC)
                    with predicting(new, [server.grpc_address], pictures, threads) as of_new:
                        of_new.wait_for(calls)
                        of_old.wait_for(calls)
                    totals += of_new.outcomes
                    if not again:  # roll back
                        repository.select(MODEL, versions[:1])
                        control.load_model(MODEL, headers=ADMIN_OVER_GRPC)
                        of_old.wait_for(calls)
            totals += of_old.outcomes
            with predicting(new, [server.grpc_address], pictures, threads) as of_new:
                repository.select(MODEL, versions[1:])
                control.load_model(MODEL, headers=ADMIN_OVER_GRPC)
                of_new.wait_for(calls)
                repository.prune()
                of_new.wait_for(calls)
            totals += of_new.outcomes
            refused = _refused(old, server)
            old = new
    return {
        "loads_under_load": 4 * rounds,
        "calls": totals.total(),
        "outcomes": dict(totals),
        "device_of_a_retired_version": refused,
    }


def rolling_restart(
    folder: Path, pictures: list[Image], *, rounds: int, calls: int, threads: int, count: int = 3
) -> dict[str, Any]:
    """Stop and start each of ``count`` servers in turn; a device prefers the first and asks the next when it fails."""
    tiny = write_tiny(folder)
    with ExitStack() as stack:
        servers = [TritonServer(tiny.repository, venv=VENV) for _ in range(count)]
        for server in servers:
            stack.callback(server.kill)
            server.start()
        addresses = [server.grpc_address for server in servers]
        with predicting(tiny, addresses, pictures, threads) as devices:
            for _ in range(rounds):
                for server in servers:
                    devices.wait_for(calls)
                    server.stop()
                    devices.wait_for(calls)
                    server.start()
    return {"restarts": count * rounds, "calls": devices.outcomes.total(), "outcomes": dict(devices.outcomes)}


def poison(folder: Path, *, good: int, threads: int = 16) -> dict[str, Any]:
    """Send ``good`` good requests from seven threads of eight, while each eighth sends what no device would."""
    tiny = write_tiny(folder)
    session = ort.InferenceSession(tiny.head, providers=["CPUExecutionProvider"])
    outcomes: Counter[str] = Counter()
    lock, senders = threading.Lock(), threads - threads // 8
    with TritonServer(tiny.repository, venv=VENV) as server:

        def work(number: int) -> None:
            arrays, bad = payload(1, seed=number), number % 8 == 0
            (expected,) = session.run(None, arrays)
            if bad:  # one beyond the last channel, the others descending
                arrays["channels"] = arrays["channels"][:, ::-1].copy() + np.uint8(0 if number else 200)
            with tritonclient.grpc.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
                for _ in range(-(-good // senders)):
                    outcome = _ask(client, arrays, expected)
                    with lock:
                        outcomes[f"{'bad' if bad else 'good'}: {outcome}"] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        with _control(server) as control:
            stats = control.get_inference_statistics(MODEL, as_json=True)["model_stats"][0]
    return {
        "outcomes": dict(outcomes),
        "requests_per_batch": round(outcomes.total() / int(stats["execution_count"]), 2),
    }


def _ask(client: tritonclient.grpc.InferenceServerClient, arrays: dict[str, Any], expected: Any) -> str:
    inputs = []
    for name, array in arrays.items():
        inputs.append(tritonclient.grpc.InferInput(name, array.shape, "UINT8"))
        inputs[-1].set_data_from_numpy(array)
    try:
        answer = client.infer(MODEL, inputs, client_timeout=30).as_numpy("probabilities")
    except InferenceServerException as error:
        return str(error.status())
    return "answer" if np.allclose(answer, expected, rtol=0, atol=1e-6) else "wrong answer"


@contextmanager
def _control(server: TritonServer) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    with tritonclient.grpc.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
        yield client


def _refused(pair: Tiny, server: TritonServer) -> str:
    """Say how a device learns that its head is gone; it has sent nothing by then."""
    try:
        PrivateClient(pair.bundle, server.grpc_address, device="cpu").close()
    except DCPError as error:
        return type(error).__name__
    return "answer"


def measure(*, rounds: int, calls: int, good: int, threads: int) -> dict[str, Any]:
    """Run all three, each on its own servers.

    Args:
        rounds: New versions, and rolling restarts.
        calls: Answers to wait for between two changes.
        good: Good requests beside the bad ones.
        threads: Devices of each contract.
    """
    pictures = list(np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8))
    load: dict[str, Any] = {"rounds": rounds, "calls": calls, "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        return {
            "roll_out": roll_out(Path(folder, "roll-out"), pictures, **load),
            "rolling_restart": rolling_restart(Path(folder, "restart"), pictures, **load),
            "poison": poison(Path(folder, "poison"), good=good),
        }


def main() -> None:
    """Measure, and record."""
    from tests.benchmarks.record import record  # late: it needs torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--good", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    figures = measure(rounds=options.rounds, calls=options.calls, good=options.good, threads=options.threads)
    record("rollout", "python -m tests.benchmarks.rollout", vars(options) | figures)


if __name__ == "__main__":
    main()
