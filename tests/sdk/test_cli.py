"""Each command says what it should, and ends with the right status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import __version__, doctor
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.measurements import AttackResult, Interval, Luck, Reconstruction, SideChannel, Utility
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.serving import TritonServer
from tests.sdk.helpers import memory, run
from tests.tiny import LABELS, ROOT, Tiny, write_tiny

NOBODY = "grpc://127.0.0.1:9"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))
    return path


def test_version() -> None:
    assert run("--version").output.strip() == __version__


def test_predict_names_each_picture_and_its_label(tiny: Tiny, picture: Path) -> None:
    result = run("predict", tiny.bundle, memory(tiny), picture, picture)
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if str(picture) in line]
    assert len(lines) == 2
    assert lines[0][1] in LABELS
    assert lines[0][3] == "%"
    assert 50 <= float(lines[0][2]) <= 100, "the more probable of two"
    assert lines[0][4:6] == [str(tiny.manifest.contract.payload_bytes), "B"]


def test_predict_keeps_the_answers_beside_a_file_that_is_no_picture(tiny: Tiny, picture: Path, tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.png"
    corrupt.write_bytes(picture.read_bytes()[:100])
    result = run("predict", tiny.bundle, memory(tiny), picture, corrupt, picture, tmp_path / "missing.png", picture)
    assert result.exit_code == 2
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == [
        str(picture),
        str(corrupt),
        str(picture),
        f"{tmp_path}/missing.png",
        str(picture),
    ]
    assert [row[1] for row in rows[1::2]] == ["FrameError"] * 2
    assert all(row[1] in LABELS and len(row) == 8 for row in rows[::2])
    errors = result.stderr.splitlines()
    assert [line.startswith("FrameError: expected") for line in errors] == [True] * 2
    assert "corrupt.png" in errors[0]
    assert "missing.png" in errors[1]


@pytest.mark.triton
def test_predict_over_grpc(tiny: Tiny, tiny_server: TritonServer, picture: Path) -> None:
    result = run("predict", tiny.bundle, tiny_server.grpc_address, picture, "--timeout", 30)
    assert result.exit_code == 0, result.output


def test_inspect_tells_the_contract_and_the_missing_report(tiny: Tiny) -> None:
    result = run("inspect", tiny.bundle)
    assert result.exit_code == 0
    for expected in (tiny.manifest.contract.digest, "keeps 3 of 8 channels", "No privacy report"):
        assert expected in result.output


@pytest.mark.parametrize(
    ("share", "quick", "words"),
    [
        (0.6, False, "NOT PROTECTED"),
        (0.6, True, "NOT PROTECTED"),
        (0.35, False, "Protected"),
        (0.35, True, "Not known"),
    ],
)
def test_inspect_gives_the_verdict(share: float, quick: bool, words: str, tmp_path: Path) -> None:
    pair = write_tiny(tmp_path)
    interval = Interval(value=share, low=share - 0.02, high=share + 0.02)
    attack = AttackResult(
        name="guesser",
        balanced_accuracy=interval,
        accuracy=interval,
        recalls={},
        training_loss=0.1,
        prior_entropy=1.0,
        minutes=1,
    )
    report = PrivacyReport(
        contract_digest=pair.manifest.contract.digest,
        sensitive="colour",
        chance=1 / 3,
        majority=0.4,
        leaked=1000,
        tested=10,
        utility=Utility(pictures=10, balanced_accuracy=interval, groups=()),
        attacks=(attack,),
        luck=Luck(shuffles=9, balanced_accuracy=interval, auc=None),
        side_channels=(SideChannel(name="mask only", balanced_accuracy=interval, chance=1 / 3),),
        reconstructions=(Reconstruction(name="decoder", pictures=10, ssim=0.4, psnr_db=13, mean_picture_ssim=0.4),),
        quick=quick,
        seed=0,
        created="2026-01-01T00:00:00Z",
        hardware="none",
        command="none",
    )
    report.save(pair.bundle)
    assert words in run("inspect", pair.bundle).output
    report.model_copy(update={"contract_digest": "0" * 64}).save(pair.bundle)
    refused = run("inspect", pair.bundle)
    assert refused.exit_code == 2
    assert "another bundle" in refused.output


def test_inspect_finds_an_edited_graph(tmp_path: Path) -> None:
    pair = write_tiny(tmp_path)
    with (pair.bundle / DEVICE_GRAPH_FILE).open("ab") as file:
        file.write(b"\0")
    result = run("inspect", pair.bundle)
    assert result.exit_code == 2
    assert result.stderr.startswith("BundleError: ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("predict", "nowhere", NOBODY, "a.png"), "BundleError"),
        (("predict", "{bundle}", NOBODY, "a.png"), "ServerUnavailable"),
        (("predict", "{bundle}", "ftp://host:1", "a.png"), "ConfigError"),
        (("predict", "{bundle}", "{memory}", "nowhere.png"), "FrameError"),
        (("predict", "{bundle}", "{memory}", "a.png", "--timeout", "0"), "ConfigError"),
        (("predict", "{bundle}", NOBODY, "a.png", "--header", "no-value"), "ConfigError"),
        (("predict", "{bundle}", "grpcs://localhost:9", "a.png", "--ca-file", "nowhere.pem"), "ConfigError"),
        (("predict", "{bundle}", NOBODY, "a.png", "--certificate-file", "nowhere.pem"), "ConfigError"),
        (("predict", "{bundle}", NOBODY, "a.png", "--api-key-file", "nowhere"), "ConfigError"),
        (("watch", "{bundle}", "{memory}", "nowhere.mp4"), "FrameError"),
        (("watch", "{bundle}", "{memory}", "nowhere.mp4", "--save", "nowhere/out.mp4"), "ConfigError"),
        (("watch", "{bundle}", "{memory}", "nowhere.mp4", "--in-flight", "0"), "ConfigError"),
        (("serve", "nowhere"), "ConfigError"),
        (("serve", "{repository}", "--venv", "nowhere"), "ConfigError"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_errors_are_one_line_and_status_2(tiny: Tiny, arguments: tuple[str, ...], error: str) -> None:
    places = {"bundle": tiny.bundle, "memory": memory(tiny), "repository": tiny.repository}
    result = run(*(argument.format_map(places) for argument in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{error}: ")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_doctor_passes_a_good_pair(tiny: Tiny) -> None:
    result = run("doctor", tiny.bundle, memory(tiny))
    assert result.exit_code == 0, result.output
    assert "PROBLEM" not in result.output
    for subject in (
        "Python",
        "ONNX Runtime",
        "CUDA",
        "OpenCV",
        "camera",
        "device graph",
        "server",
        "pairing",
    ):
        assert f"{subject}: " in result.output


def test_doctor_finds_a_head_of_another_bundle(tiny: Tiny, tmp_path: Path) -> None:
    other = write_tiny(tmp_path, seed=1)
    result = run("doctor", tiny.bundle, memory(other))
    assert result.exit_code == 1
    assert "PROBLEM pairing: " in result.output


@pytest.mark.parametrize("server", [NOBODY, "ftp://x"], ids=["nobody answers", "no address"])
def test_doctor_finds_no_server(tiny: Tiny, server: str) -> None:
    result = run("doctor", tiny.bundle, server)
    assert result.exit_code == 1
    assert "PROBLEM server: " in result.output


def test_doctor_finds_a_missing_bundle(tmp_path: Path) -> None:
    result = run("doctor", tmp_path)
    assert result.exit_code == 1
    assert "PROBLEM bundle: " in result.output


def test_doctor_finds_two_packages_in_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda package: "1.0")
    result = run("doctor")
    assert result.exit_code == 1
    assert "PROBLEM OpenCV: opencv-python 1.0, opencv-python-headless 1.0" in result.output
    assert "-> pip uninstall --yes onnxruntime onnxruntime-gpu" in result.output


def test_a_key_on_the_command_line_is_refused_and_not_repeated(tiny: Tiny) -> None:
    """Others read a command line in the list of processes."""
    refused = run("serve", tiny.repository, "--key", "opensesame")
    assert refused.exit_code == 2
    assert "opensesame" not in refused.output
    assert "--api-key-file" in run("serve", "--help").output


@pytest.mark.triton
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_serve_runs_until_it_is_told_to_stop(
    tiny: Tiny, picture: Path, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "dcp_sdk.cli", "serve", tiny.repository, "--venv", ROOT / ".venv-triton"]
    ports = ["--grpc-port", "0", "--http-port", "0"]
    key_file = tmp_path / "key"
    key_file.write_text("opensesame\n")
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    if number is signal.SIGINT:
        environment["DCP_KEY"] = "opensesame"
    else:
        ports += ["--api-key-file", str(key_file)]
    with subprocess.Popen(
        [*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = next(word for word in line.split() if word.startswith("grpc://"))
        arguments = ("predict", tiny.bundle, address, picture, "--timeout", 30)
        assert run(*arguments).exit_code == 2
        monkeypatch.setenv("DCP_KEY", "opensesame")
        assert run(*arguments).exit_code == 0
        monkeypatch.setenv("DCP_KEY", "wrong")
        denied = run(*arguments)
        assert denied.exit_code == 2
        assert denied.stderr.startswith("AccessDenied: ")
        assert "wrong" not in denied.output
        assert run(*arguments, "--api-key-file", key_file).exit_code == 0, "the file counts, not the variable"
        measured = run("bench", tiny.bundle, address, "--calls", 1, "--api-key-file", key_file)
        assert "SDK tax" in measured.output, "what it is compared with has the key, too"
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert process.stdout.read().strip() == "Stopped."
    assert run("predict", tiny.bundle, address, picture).exit_code == 2
