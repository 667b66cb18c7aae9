"""A real Triton comes up, goes down, and leaves nothing behind, whichever way it ends."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritonclient import grpc as triton

from dcp_sdk.errors import ConfigError, ServerUnavailable
from dcp_sdk.serving import ADMIN_KEY_HEADER, KEY_HEADER, TritonServer
from tests.tiny import ADMIN_KEY, ADMIN_OVER_GRPC, ROOT, Tiny

VENV = ROOT / ".venv-triton"
NOT_AN_ENVIRONMENT = Path(__file__).parent


def group(pid: int) -> set[int]:
    """Find the living processes of process group ``pid``."""
    members = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(process_group) == pid and state != "Z":
            members.add(int(stat.parent.name))
    return members


def traces(owner: int | None = None) -> set[Path]:
    """Find what the servers of a process, by default this one, keep: shared memory and temporary folders."""
    pid = owner or os.getpid()
    return {*Path("/dev/shm").glob(f"dcp_triton_{pid}_*"), *Path(tempfile.gettempdir()).glob(f"dcp-triton-{pid}-*")}


def vanish(pid: int) -> bool:
    """Wait for the group to end; false if it does not."""
    deadline = time.monotonic() + 30
    while group(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not group(pid)


@pytest.fixture
def before() -> Iterator[set[Path]]:
    """List what other servers of this process keep, and check at the end that nothing was added."""
    known = traces()
    yield known
    assert traces() - known == set()


@pytest.mark.triton
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_leaves_nothing_behind_and_starts_again(tiny: Tiny, before: set[Path], end: str) -> None:
    server = TritonServer(tiny.repository, venv=VENV)
    addresses = (server.grpc_address, server.http_address)
    for _ in range(2):
        server.start()
        assert server.pid is not None
        pid = server.pid
        assert len(group(pid)) == 2, "the server and one process for the model"
        assert len(traces() - before) == 2, "one shared memory segment and one folder"
        getattr(server, end)()
        getattr(server, end)()
        assert server.pid is None
        assert vanish(pid), "init buries a killed child a moment later"
    assert addresses == (server.grpc_address, server.http_address)


@pytest.mark.triton
def test_ends_when_the_block_raises(tiny: Tiny, before: set[Path]) -> None:
    with pytest.raises(KeyboardInterrupt), TritonServer(tiny.repository, venv=VENV) as server:
        assert server.pid is not None
        pid = server.pid
        raise KeyboardInterrupt
    assert vanish(pid)


@pytest.mark.triton
def test_cleans_up_after_the_server_died(tiny: Tiny, before: set[Path]) -> None:
    with TritonServer(tiny.repository, venv=VENV) as server:
        assert server.pid is not None
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        assert server.pid is None
    assert vanish(pid)


@pytest.mark.triton
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_dies_with_its_parent(tiny: Tiny, tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import sys, time; from dcp_sdk.serving import TritonServer\n"
        "server = TritonServer(sys.argv[1], venv=sys.argv[2]).start()\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tiny.repository, VENV],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert group(pid)
        assert traces(parent.pid)
        parent.send_signal(number)
    assert vanish(pid)
    assert not traces(parent.pid)


@pytest.mark.triton
def test_key_guards_inference_and_not_readiness(tiny: Tiny) -> None:
    """The key that lies on every device opens no more than inference: who may load a model may run code."""
    with TritonServer(tiny.repository, venv=VENV, key="opensesame", admin_key=ADMIN_KEY) as server:
        with triton.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
            assert client.is_model_ready("task_head")
            device = {f"triton-grpc-protocol-{KEY_HEADER}": "opensesame"}
            for headers in (None, device, device | {f"triton-grpc-protocol-{ADMIN_KEY_HEADER}": "opensesame"}):
                for change in (client.load_model, client.unload_model):
                    with pytest.raises(triton.InferenceServerException, match="restricted"):
                        change("task_head", headers=headers)
            client.load_model("task_head", headers=ADMIN_OVER_GRPC)
        connection = http.client.HTTPConnection(server.http_address.removeprefix("http://"), timeout=10)
        connection.request("POST", "/v2/models/task_head/infer", body="{}")
        assert connection.getresponse().status == http.HTTPStatus.FORBIDDEN
        connection.close()


@pytest.mark.triton
@pytest.mark.parametrize(
    "open_to", [{}, {"key": "opensesame"}, {"host": "0.0.0.0"}], ids=["no keys", "keys", "network"]
)
def test_nobody_loads_a_model_where_no_admin_key_is(tiny: Tiny, open_to: dict[str, str]) -> None:
    with TritonServer(tiny.repository, venv=VENV, **open_to) as server:  # type: ignore[arg-type]
        with triton.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
            with pytest.raises(triton.InferenceServerException, match="restricted"):
                client.load_model("task_head")
        for what in ("load", "unload"):
            refused_over_http(server, f"v2/repository/models/task_head/{what}")


@pytest.mark.triton
def test_no_request_turns_tracing_or_logging_on(tiny_server: TritonServer) -> None:
    with triton.InferenceServerClient(tiny_server.grpc_address.removeprefix("grpc://")) as client:
        for change in (
            lambda: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
            lambda: client.update_log_settings({"log_verbose_level": 9}),
            lambda: client.register_system_shared_memory("all", "/dev/shm", 8),
        ):
            with pytest.raises(triton.InferenceServerException, match="restricted"):
                change()


@pytest.mark.triton
@pytest.mark.parametrize("path", ["v2/trace/setting", "v2/logging", "v2/systemsharedmemory/region/all/register"])
def test_nor_over_http(tiny_server: TritonServer, path: str) -> None:
    refused_over_http(tiny_server, path)


def refused_over_http(server: TritonServer, path: str) -> None:
    """Post as a page in a browser could."""
    request = urllib.request.Request(f"{server.http_address}/{path}", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.code == 403


@pytest.mark.triton
def test_metrics_and_log(tiny: Tiny, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    with TritonServer(tiny.repository, venv=VENV, metrics=True, log=log) as server:
        assert server.metrics_address is not None
        with urllib.request.urlopen(server.metrics_address, timeout=10) as answer:
            assert b"nv_inference_request_success" in answer.read()
    assert "Started GRPCInferenceService" in log.read_text()


@pytest.mark.triton
def test_serves_on_the_ports_that_were_asked_for(tiny: Tiny) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        http_port, grpc_port = one.getsockname()[1], two.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{http_port} to be free"):
            TritonServer(tiny.repository, venv=VENV, http_port=http_port)
    with TritonServer(tiny.repository, venv=VENV, http_port=http_port, grpc_port=grpc_port) as server:
        assert server.http_address == f"http://127.0.0.1:{http_port}"
        assert server.grpc_address == f"grpc://127.0.0.1:{grpc_port}"


@pytest.mark.triton
def test_a_server_that_cannot_run_says_why(tiny: Tiny, before: set[Path]) -> None:
    with pytest.raises(ServerUnavailable, match="no-such-flag"):
        TritonServer(tiny.repository, venv=VENV, extra_flags=["--no-such-flag=1"]).start()


@pytest.mark.triton
def test_a_server_that_is_too_slow_is_ended(tiny: Tiny, before: set[Path]) -> None:
    with pytest.raises(ServerUnavailable, match="ready within"):
        TritonServer(tiny.repository, venv=VENV, ready_timeout_s=0).start()


def test_missing_environment_names_the_command(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make triton"):
        TritonServer(tiny.repository, venv=NOT_AN_ENVIRONMENT)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    for script, found in (("exit 3", "status 3"), ("echo no JSON", "does not answer")):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        with pytest.raises(ConfigError, match=found):
            TritonServer(tiny.repository, venv=tmp_path)
    python.chmod(0o644)
    with pytest.raises(ConfigError, match="PermissionError"):
        TritonServer(tiny.repository, venv=tmp_path)


def test_environment_without_triton_is_told_from_none() -> None:
    with pytest.raises(ConfigError, match="without nvidia-pytriton"):
        TritonServer(ROOT / "triton_models", venv=sys.prefix)


@pytest.mark.triton
def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.pbtxt"):
        TritonServer(tmp_path, models=["absent"], venv=VENV)
    with pytest.raises(ConfigError, match="expected some to load"):
        TritonServer(tmp_path, models=[], venv=VENV)
    with pytest.raises(ConfigError, match="expected models"):
        TritonServer(tmp_path, venv=VENV)


@pytest.mark.triton
@pytest.mark.parametrize("name", ["with a space", "semi;colon", "ünï"])
def test_serves_from_a_path_with_any_letters(name: str, tiny: Tiny, tmp_path: Path) -> None:
    repository = tmp_path / name
    shutil.copytree(tiny.repository, repository)
    with TritonServer(repository, venv=VENV, ready_timeout_s=20) as server:
        with triton.InferenceServerClient(server.grpc_address.removeprefix("grpc://")) as client:
            assert client.is_model_ready("task_head")


def test_wait_needs_a_start(tiny: Tiny) -> None:
    with pytest.raises(ServerUnavailable, match="start"):
        TritonServer(tiny.repository, venv=VENV).wait()
