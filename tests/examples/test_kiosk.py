"""The kiosk outlives the server's outages and tells systemd so; its unit is one that systemd takes."""

from __future__ import annotations

import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from dcp_sdk import BundleError, PrivateClient
from dcp_sdk.serving import TritonServer
from tests.e2e.tap import port_of, tap
from tests.tiny import LABELS, ROOT, Tiny

KIOSK, UNIT = ROOT / "examples" / "kiosk.py", ROOT / "examples" / "kiosk.service"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Listen where systemd would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


@contextmanager
def kiosk(tiny: Tiny, server: str, systemd: socket.socket) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, KIOSK, "--bundle", tiny.bundle, "--server", server, ROOT / "examples" / "data"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(map(str, command), env={"NOTIFY_SOCKET": systemd.getsockname()}, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.triton
def test_it_lives_on_while_the_server_is_away(tiny: Tiny, tiny_server: TritonServer, systemd: socket.socket) -> None:
    with tap(port_of(tiny_server, "grpc")) as wire:
        with kiosk(tiny, f"grpc://127.0.0.1:{wire.port}", systemd) as process:
            assert process.stdout is not None and process.stderr is not None
            assert systemd.recv(64) == b"READY=1"
            assert process.stdout.readline().split()[0] in LABELS
            assert systemd.recv(64) == b"WATCHDOG=1"
            wire.refuse()
            assert process.stderr.readline().startswith("ServerUnavailable: ")
            wire.listen()
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                while systemd.recv(64):  # all that it said until now
                    pass
            systemd.settimeout(60)
            assert systemd.recv(64) == b"WATCHDOG=1", "it goes on"
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(30) == 0


def test_what_no_new_start_mends_has_a_status_of_its_own(broken: Tiny, systemd: socket.socket) -> None:
    (broken.bundle / "device.onnx").write_bytes(b"not what was exported")
    with kiosk(broken, f"memory://{broken.repository}", systemd) as process:
        said = process.communicate(timeout=60)[1]
        assert said.startswith("BundleError: ")
        assert f"RestartPreventExitStatus={process.returncode}\n" in UNIT.read_text(encoding="utf-8")


def test_what_was_well_once_is_started_again(
    tiny: Tiny, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of a kind that lasts at the start, in the middle of the work: a new start may mend it."""
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    monkeypatch.setattr(sys, "argv", ["kiosk", "--bundle", str(tiny.bundle), "--server", f"memory://{tiny.repository}"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(PrivateClient, "stream", Mock(side_effect=BundleError("failed while running")))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(KIOSK), run_name="__main__")
    assert (systemd.recv(64), ended.value.code) == (b"READY=1", 1)
    assert capsys.readouterr().err.startswith("BundleError: ")


def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/dcp/bin/python", sys.executable), encoding="utf-8")

    def analysed(*options: str) -> str:
        done = subprocess.run([analyze, *options], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert analysed("verify", str(unit)) == ""
    version = int(re.findall(r"systemd (\d+)", analysed("--version"))[0])
    if version < 250:
        pytest.skip(f"systemd {version} rates no files")
    assert "exposure level" in analysed("security", "--offline=true", "--threshold=25", str(unit))


def test_the_unit_says_what_the_page_says() -> None:
    page, unit = (path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "deploy_device.md", UNIT))
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    python, program, *arguments = command.split()
    for path in (python.removesuffix("/bin/python"), Path(program).parent, *arguments[1:4:2]):
        assert str(path) in page, "the unit uses what the page tells to install"
    for setting in ("WatchdogSec=30", "RestartSec=2", "LoadCredential=key:/etc/dcp/key"):
        assert f"\n{setting}\n" in unit
    assert "(`WatchdogSec`)" in page
