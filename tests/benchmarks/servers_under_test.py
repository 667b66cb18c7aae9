"""What the head is compared with: the whole network, on the same Triton and on PyTorch behind FastAPI.

Both receive decoded, resized pictures, so that decoding counts for nobody. The weights are fresh: time does not depend
on them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.contract import Contract, sha256_file
from dcp_sdk.serving.repository import ModelRepository
from tests.tiny import MODEL_CODE

WHOLE = "whole_network"
"""Triton's name of the network that receives the picture."""
_NO_HEAD = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        (output,) = json.loads(args["model_config"])["output"]
        self._name, self._classes = output["name"], int(output["dims"][-1])

    def execute(self, requests):
        return [self._answer(len(request.inputs()[0].as_numpy())) for request in requests]

    def _answer(self, batch):
        same = np.full((batch, self._classes), 1 / self._classes, np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._name, same)])
"""


def add_whole_network(bundle: Path, repository: Path) -> Contract:
    """Export the unsplit network of a bundle's recipe into a model repository; return what its server takes."""
    from tests.benchmarks.whole_network import write_whole_network  # late: it needs torch

    manifest = Manifest.load(bundle)
    contract = manifest.contract
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "whole.onnx")
        write_whole_network(manifest, graph)
        frame = contract.input.model_copy(update={"name": "frame"})  # what was the device's input now travels
        head = contract.head.model_copy(update={"model": WHOLE, "sha256": sha256_file(graph)})
        whole = contract.model_copy(update={"input": frame, "payload": (contract.input,), "head": head})
        ModelRepository(repository).add(whole, graph, MODEL_CODE)
    return whole


def without_batching(repository: Path, model: str, name: str) -> None:
    """Copy a model under another name, for the same payloads, with a server that takes one request at a time."""
    for path in _copy(repository, model, name):
        before, _, after = path.read_text().partition("dynamic_batching {")
        path.write_text(before + after.partition("\n}\n")[2])


def without_head(repository: Path, model: str, name: str) -> None:
    """Copy a model under another name that checks nothing and runs no graph: what a request costs Triton itself."""
    _copy(repository, model, name)
    for code in (repository / name).glob("*/model.py"):
        code.write_text(_NO_HEAD)


def _copy(repository: Path, model: str, name: str) -> list[Path]:
    """Copy a model under another name; its configurations."""
    copied = shutil.copytree(repository / model, repository / name)
    configurations = [copied / "config.pbtxt", *copied.glob("configs/*.pbtxt")]
    for path in configurations:
        path.write_text(path.read_text().replace(f'name: "{model}"', f'name: "{name}"'))
    return configurations


@contextmanager
def fastapi(bundle: Path, port: int) -> Iterator[tuple[str, int]]:
    """Serve the whole network with torch behind FastAPI, one worker; give its address and process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.serving_fastapi", str(bundle), str(port)], start_new_session=True
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/ready", timeout=5).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("expected FastAPI ready within 120 s, it is not") from error
                time.sleep(0.2)
        yield f"{address}/predict", process.pid
    finally:
        process.terminate()
        process.wait(10)


def members(group: int) -> dict[int, list[str]]:
    """Find the processes of a group: the fields of ``/proc/PID/stat`` after the name, by process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group:
            found[int(stat.parent.name)] = fields
    return found


def cpu_s(group: int) -> float:
    """Processor seconds so far of all processes of a group, those of the kernel included."""
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in members(group).values())
    return ticks / os.sysconf("SC_CLK_TCK")
