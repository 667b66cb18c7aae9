"""Each example runs as its user would run it, the demo against a real Triton too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from tests.tiny import PAPER, ROOT, SHIPPED

EXAMPLES = ROOT / "examples"
MEMORY = ["--server", f"memory://{ROOT / 'triton_models'}"]
PAIR = ["--bundle", str(PAPER), *MEMORY]
"""Nothing is random here: each answer is the same."""
ASTRONAUT = EXAMPLES / "data" / "astronaut.jpg"


def run(script: str, *arguments: str | Path, cwd: Path) -> str:
    """Run an example from a folder that is not the repository; its output."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_predict_file(tmp_path: Path) -> None:
    assert f"{ASTRONAUT}: Female" in run("predict_file.py", *PAIR, ASTRONAUT, cwd=tmp_path)


def test_camera(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        shutil.copy(ASTRONAUT, folder / f"{number}.jpg")
    lines = run("camera.py", *PAIR, folder, cwd=tmp_path).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("Female") for line in lines)


@pytest.mark.parametrize("script", ["predict_file.py", "camera.py"])
def test_an_error_is_one_line_and_status_2(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / script), *PAIR, str(tmp_path / "missing.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("FrameError: expected")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda path: path.name)
def test_demo_without_a_server(bundle: Path, tmp_path: Path) -> None:
    said = run("demo.py", "--bundle", bundle, *MEMORY, "--output", tmp_path / "demo.png", cwd=tmp_path)
    assert "Female" in said
    assert "JPEG, quality 90" in said
    drawn = cv2.imread(str(tmp_path / "demo.png"))
    assert drawn is not None
    assert drawn.std() > 20, "something is on it"


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.triton
@pytest.mark.parametrize("interrupt", [False, True], ids=["to its end", "Ctrl-C"])
def test_demo_with_its_own_server(interrupt: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-u", str(EXAMPLES / "demo.py"), "--output", str(tmp_path / "demo.png")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        first = demo.stdout.readline()
        assert first.startswith("Started tritonserver, process "), first + demo.stdout.read()
        server = int(first.split()[-1])
        assert exists(server)
        if interrupt:
            demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == (1 if interrupt else 0), rest
    assert "Traceback" not in rest
    assert ("Interrupted." if interrupt else "Wrote ") in rest
    deadline = time.monotonic() + 5
    while exists(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not exists(server)
