"""``dcp watch``: what the terminal says, and the video that is read back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import PrivateClient, load_image
from dcp_sdk.payload_picture import HEIGHT_PX, WIDTH_PX, side_by_side
from dcp_sdk.preprocess import Image
from tests.sdk.helpers import eventually, memory, run
from tests.tiny import PAPER, ROOT, SHIPPED, Tiny

ASTRONAUT = ROOT / "examples" / "data" / "astronaut.jpg"
MODELS = f"memory://{ROOT / 'triton_models'}"
CAMERA, SENT = slice(0, 640), slice(656, None)
"""Columns of the drawing."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures: twice the astronaut, then both turned and of another size."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(2):
        shutil.copy(ASTRONAUT, pictures / f"{index}.jpg")
    turned = cv2.resize(cv2.rotate(cv2.imread(str(ASTRONAUT)), cv2.ROTATE_180), (300, 500))
    for index in range(2, 4):
        cv2.imwrite(str(pictures / f"{index}.jpg"), turned)
    return pictures


def read_back(path: Path) -> list[Image]:
    video, frames = cv2.VideoCapture(str(path.rename(path.with_name("read.mp4")))), []
    while (read := video.read())[0]:
        frames.append(np.asarray(read[1], np.uint8))
    video.release()
    return frames


def test_it_tells_how_the_stream_goes(tiny: Tiny, folder: Path) -> None:
    result = run("watch", tiny.bundle, memory(tiny), folder)
    assert result.exit_code == 0, result.output
    for line in (
        r"frames +4, [\d.]+ per second, 0 dropped",
        r"frame age +\d+ ms",
        r"obfuscate +[\d.]+ ms   p50 [\d.]+   p99 [\d.]+",
        r"requests +4 sends, 0 retries, 0 failovers",
        rf"breaker +{re.escape(memory(tiny))} closed",
    ):
        assert re.search(line, result.output), line
    assert re.search(r"frames +2, ", run("watch", tiny.bundle, memory(tiny), folder, "--frames", 2).output)


@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda path: path.name)
def test_what_is_saved_is_the_picture_beside_what_was_sent(bundle: Path, folder: Path, tmp_path: Path) -> None:
    video = tmp_path / "12:30.mp4"  # the beginning of an address, for who asks OpenCV by text
    result = run("watch", bundle, MODELS, folder, "--save", video)
    assert result.exit_code == 0, result.output
    frames = read_back(video)
    assert [frame.shape for frame in frames] == [(HEIGHT_PX, WIDTH_PX, 3)] * 4

    drawn: list[Image] = []
    with PrivateClient(bundle, MODELS, device="cpu") as client:
        contract = client.manifest.contract
        list(
            client.stream(
                folder, observe=lambda frame, sent, _: drawn.append(side_by_side(frame.image_rgb, sent, contract))
            )
        )
    for frame, drawing in zip(frames, drawn, strict=True):
        difference = np.abs(frame.astype(int) - drawing)
        assert difference[:, CAMERA].mean() < 8, "but for what the codec loses"
        if bundle == PAPER:  # nothing is random there
            assert difference[:, SENT].mean() < 8
            assert drawing[40:, SENT].std() > 20, "something is on it"
    same = np.abs(frames[0].astype(int) - frames[1])[:, CAMERA].mean()
    other = np.abs(frames[0].astype(int) - frames[2])[:, CAMERA].mean()
    assert same < 3
    assert other > 20


def test_maps_and_bars_show_the_values_that_were_sent() -> None:
    picture = load_image(ASTRONAUT)
    with PrivateClient(PAPER, MODELS, device="cpu") as client:
        contract = client.manifest.contract
        payload = client._stages._obfuscator.run(np.zeros((1, 112, 112, 3), np.uint8))
        dark = side_by_side(picture, (payload[0], np.zeros_like(payload[1])), contract)
        bright = side_by_side(picture, (payload[0], np.full_like(payload[1], 255)), contract)
    tiles = bright[40:, SENT].mean() - dark[40:, SENT].mean()
    assert tiles > 50
    np.testing.assert_array_equal(bright[:, CAMERA], dark[:, CAMERA])

    with PrivateClient(SHIPPED, MODELS, device="cpu") as client:
        contract = client.manifest.contract
        numbers = np.uint8([[0, 3, 9, 11]])
        levels = np.uint8([0, 85, 170, 255]).reshape(1, 4, 1, 1)
        bars = side_by_side(picture, (numbers, levels), contract)[40:, SENT]
    filled = [(bars[:, 120 * bar + 60] == (80, 170, 250)).all(axis=-1).sum() for bar in range(4)]
    np.testing.assert_allclose(filled, [1, 1 + 440 / 3, 1 + 880 / 3, 441], atol=1)


@pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")),
    reason="no screen to draw on: apt install xvfb xdotool",
)
def test_the_window_shows_the_drawing_until_escape(tiny: Tiny, folder: Path) -> None:
    """On a screen of its own, that nobody sees."""
    for index in range(4000):  # minutes: what ends sooner was ended
        os.link(folder / "0.jpg", folder / f"more{index}.jpg")
    command = [sys.executable, "-m", "dcp_sdk.cli", "watch", tiny.bundle, memory(tiny), folder, "--window"]
    # It would start anew, and refuse who comes just then, whenever the last window is gone.
    xvfb = ["Xvfb", "-noreset", "-displayfd", "1", "-screen", "0", "1400x900x24"]
    with subprocess.Popen(xvfb, stdout=subprocess.PIPE) as screen:
        try:
            assert screen.stdout
            environment = os.environ | {"DISPLAY": f":{screen.stdout.readline().decode().strip()}"}
            watching = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)

            def xdotool(*words: str) -> str:  # may fail: the window is not there yet, or not any more
                done = subprocess.run(
                    ["xdotool", "search", "--name", "dcp watch", *words],
                    env=environment,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=False,
                    timeout=60,
                )
                return done.stdout

            def shows_the_drawing() -> bool:  # a window begins small, before there is something to draw
                return f"WIDTH={WIDTH_PX}\nHEIGHT={HEIGHT_PX}" in xdotool("getwindowgeometry", "--shell")

            def ends() -> bool:  # without a window manager, a key that is pressed at once may miss the window
                xdotool("windowfocus", "key", "--window", "%@", "Escape")
                return watching.poll() is not None

            assert eventually(shows_the_drawing)
            assert eventually(ends)
            assert watching.wait() == 0
        finally:
            watching.kill()
            screen.kill()


def test_a_window_without_a_display_is_an_error_that_says_what_to_do(tiny: Tiny, folder: Path) -> None:
    """In a process of its own: where OpenCV met no display, that process would be gone."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, "-m", "dcp_sdk.cli", "watch", tiny.bundle, memory(tiny), folder, "--window"]
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("ConfigError: --window: expected a display")
    assert "--save" in done.stderr


def test_help_says_where_the_pictures_stay() -> None:
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", run("watch", "--help").output).split())
    assert "it stays on this device" in said
    for option in ("--ca-file", "--certificate-file", "--certificate-key-file", "--api-key-file", "$DCP_KEY"):
        assert option in said
    assert "--key " not in said


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: OpenCV itself says nothing."""
    code = (
        "import resource, sys; import numpy as np\n"
        "from pathlib import Path; from dcp_sdk.commands.screens import VideoFile\n"
        "from dcp_sdk.payload_picture import HEIGHT_PX, WIDTH_PX\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "video = VideoFile(Path(sys.argv[1])); draw = np.random.default_rng(0).integers\n"
        "for _ in range(20): video.show(draw(0, 256, (HEIGHT_PX, WIDTH_PX, 3), np.uint8))\n"
        "video.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out.mp4")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "Look whether the disk is full" in done.stderr
