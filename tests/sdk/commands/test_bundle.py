"""The life of a bundle: keys, signature, archive, verification, use."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.signing_keys import PASSPHRASE_VARIABLE
from dcp_sdk.contract import sha256_file
from tests.sdk.helpers import run
from tests.tiny import Tiny, write_tiny


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    assert run("keygen", private, public).exit_code == 0
    return private, public


def test_from_keys_to_a_prediction(broken: Tiny, keys: tuple[Path, Path], tmp_path: Path, picture_file: Path) -> None:
    private, public = keys
    archived, server = tmp_path / "tiny.dcp", f"memory://{broken.repository}"
    assert "Not signed." in run("inspect", broken.bundle).output
    assert "2 files, signed by key" in run("sign", broken.bundle, "--private-key", private).output
    assert "3 files" in run("pack", broken.bundle, archived).output
    for bundle in (broken.bundle, archived):
        assert "and unchanged since" in run("verify", bundle, "--trusted-key", public).output
        assert "verify that with --trusted-key" in run("inspect", bundle).output
        assert "and unchanged since" in run("inspect", bundle, "--trusted-key", public).output
        trusted = ("--trusted-key", public)
        assert run("predict", bundle, server, picture_file, *trusted).exit_code == 0
        assert run("watch", bundle, server, picture_file.parent, *trusted).exit_code == 0
        assert run("doctor", bundle, server, *trusted).exit_code == 0
    (broken.bundle / "MODEL_CARD.md").write_text("another")
    for command in (
        ("verify", broken.bundle, "--trusted-key", public),
        ("inspect", broken.bundle, "--trusted-key", public),
    ):
        result = run(*command)
        assert result.exit_code == 2
        assert result.stderr.startswith("SignatureError: ")
        assert len(result.stderr.splitlines()) == 1


def test_doctor_finds_an_unsigned_bundle(tiny: Tiny, keys: tuple[Path, Path]) -> None:
    result = run("doctor", tiny.bundle, "--trusted-key", keys[1])
    assert result.exit_code == 1
    assert "PROBLEM bundle: " in result.output
    assert "dcp sign" in result.output


def test_packing_twice_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    for name in ("a.dcp", "b.dcp"):
        assert run("pack", tiny.bundle, tmp_path / name).exit_code == 0
    assert (tmp_path / "a.dcp").read_bytes() == (tmp_path / "b.dcp").read_bytes()
    assert run("pack", tiny.bundle, tmp_path / "picture.jpg").exit_code == 2
    assert run("pack", tiny.bundle, tmp_path / "no" / "a.dcp").exit_code == 2


def test_the_passphrase_comes_from_the_environment(
    broken: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "opensesame")
    assert "not encrypted" not in run("keygen", private, public).output
    assert run("sign", broken.bundle, "--private-key", private).exit_code == 0
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "openbarley")
    wrong = run("sign", broken.bundle, "--private-key", private)
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    missing = run("sign", broken.bundle, "--private-key", private)
    for result in (wrong, missing):
        assert result.exit_code == 2
        assert result.stderr.startswith("ConfigError: ")
        assert PASSPHRASE_VARIABLE in result.stderr
        assert "openbarley" not in result.output
    assert run("verify", broken.bundle, "--trusted-key", public).exit_code == 0


def test_what_no_device_would_take_is_neither_packed_nor_signed(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    pair = write_tiny(tmp_path)
    path = pair.bundle / "device.onnx"
    model = onnx.load(path)
    model.graph.node[0].domain = "com.evil"
    path.write_bytes(model.SerializeToString())
    for says in ("SHA-256", "standard domain"):
        for command in (("sign", pair.bundle, "--private-key", keys[0]), ("pack", pair.bundle, tmp_path / "x.dcp")):
            result = run(*command)
            assert result.exit_code == 2
            assert says in result.stderr
        contract = pair.manifest.contract.model_copy(update={"device_sha256": sha256_file(path)})
        Manifest(name="evil", contract=contract, provenance=pair.manifest.provenance).save(pair.bundle)
    assert not (tmp_path / "x.dcp").exists()
    assert not (pair.bundle / "signature.json").exists()


def test_a_strangers_text_does_not_reach_the_terminal_as_commands(broken: Tiny) -> None:
    manifest = broken.bundle / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"smile"', '"[/red][bold]smile"'))
    assert "[/red][bold]smile: no, yes" in run("inspect", broken.bundle).output
    told = json.loads(text)
    told["provenance"]["settings"] = {"network": {"bottleneck": {"channels": "\x1b]0;pwned\x07"}}}
    manifest.write_text(json.dumps(told))
    result = run("inspect", broken.bundle)
    assert "pwned" in result.output
    assert "\x1b" not in result.output
    manifest.write_text(text.replace('"smile"', r'"\u001b]0;smile\u0007"'))
    result = run("inspect", broken.bundle)
    assert result.exit_code == 2
    assert "contract.task.name" in result.stderr
    assert "\x1b" not in result.output
