"""The time of day jumps under a running device: answers stay right and in time, and one client lives through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dcp_sdk import PrivateClient
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.e2e.authority import Authority
from tests.e2e.clock import JUMPS, PREDICT_S, TRUE, libfaketime
from tests.e2e.tap import port_of, tap
from tests.e2e.tls_proxy import tls_server
from tests.tiny import ROOT, Tiny

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(libfaketime() is None, reason="libfaketime is not installed: apt install faketime"),
]
SLACK_S = 1.0
"""What a loaded machine may take to wake a thread."""


@contextmanager
def _child(tiny: Tiny, noise: Image, tmp_path: Path, address: str, *ca_file: Path) -> Iterator[subprocess.Popen[str]]:
    picture, dial = tmp_path / "picture.npy", tmp_path / "clock"
    np.save(picture, noise)
    dial.write_text(TRUE)
    environment = os.environ | {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(dial),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    arguments = [str(tiny.bundle), str(picture), str(dial), address, *map(str, ca_file)]
    command = [sys.executable, "-m", "tests.e2e.wandering_clock", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _phases(child: subprocess.Popen[str], between: Callable[[], object]) -> dict[str, list[dict[str, Any]]]:
    """Collect what each phase says; ``between`` runs while the child waits."""
    assert child.stdin
    assert child.stdout
    told = {}
    for line in child.stdout:
        phase = json.loads(line)
        told[phase["phase"]] = phase["calls"]
        between()
        child.stdin.write("\n")
        child.stdin.flush()
    assert child.wait() == 0
    return told


@pytest.fixture
def right(tiny: Tiny, noise: Image) -> Any:
    """Know the right answer."""
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        return pytest.approx(client.predict(noise).probabilities, abs=1e-6)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_jumps_change_nothing(
    scheme: str, tiny: Tiny, tiny_server: TritonServer, noise: Image, right: Any, tmp_path: Path
) -> None:
    """Deadlines are of the monotonic clock: no call ends early, none waits for an hour, none fails."""
    address = tiny_server.grpc_address if scheme == "grpc" else tiny_server.http_address
    with _child(tiny, noise, tmp_path, address) as child:
        told = _phases(child, lambda: None)
    assert list(told) == ["true", *JUMPS, "wandering", "true again"]
    assert len({call["year"] for calls in told.values() for call in calls}) >= 3, "it really believed in other years"
    for phase, calls in told.items():
        for call in calls:
            assert call.get("probabilities") == right, (phase, call)
            assert call["seconds"] < PREDICT_S + SLACK_S


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_certificate_under_a_wrong_clock(
    scheme: str, tiny: Tiny, tiny_server: TritonServer, noise: Image, right: Any, tmp_path: Path
) -> None:
    """It is not valid yet, or no longer: said, and the same client goes on when the clock is right again."""
    authority = Authority(tmp_path, "authority")
    with ExitStack() as opened:
        http_port = port_of(tiny_server, "http")
        port = opened.enter_context(tls_server(scheme, tiny, http_port, authority.vouch("server")))
        wire = opened.enter_context(tap(port))
        child = opened.enter_context(_child(tiny, noise, tmp_path, f"{scheme}://localhost:{wire.port}", authority.file))
        told = _phases(child, wire.cut)
    for calls in told.values():
        assert all(call["seconds"] < PREDICT_S + SLACK_S for call in calls)
    for jump, says in (("+10y", "has expired"), ("-40y", "not valid yet")):
        (call,) = told[jump]
        assert call.get("error") == "TLSFailed", call
        assert says in call["says"]
        assert "clock" in call["says"]
    for phase in ("true", "true again"):
        assert told[phase][0].get("probabilities") == right, told[phase]
