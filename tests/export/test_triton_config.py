"""The rendered configuration says what the contract says, and the committed files are such renderings."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_UINT8, ModelConfig

from dcp_sdk.contract import DIGEST_PARAMETER, Contract, Manifest
from export.triton_config import CONFIG_FILES, SHA256_PARAMETER, Backend, render, write
from tests.tiny import ROOT, Tiny

BACKENDS: tuple[Backend, ...] = ("onnxruntime", "python")
SHIPPED = sorted((ROOT / "bundles").glob("*/manifest.json"))


def parse(contract: Contract, backend: Backend) -> ModelConfig:
    """Render and read back, as Triton does."""
    return text_format.Parse(render(contract, backend), ModelConfig())


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_are_those_of_the_contract(tiny: Tiny, backend: Backend) -> None:
    contract = tiny.manifest.contract
    config = parse(contract, backend)
    assert (config.name, config.backend) == (contract.head.model, backend)
    assert config.max_batch_size == contract.head.max_batch_size
    assert list(config.version_policy.specific.versions) == [contract.head.version]
    assert [(t.name, tuple(t.dims)) for t in config.input] == [(t.name, t.shape) for t in contract.payload]
    assert [(t.name, tuple(t.dims)) for t in config.output] == [(contract.answer.name, contract.answer.shape)]
    assert {t.data_type for t in config.input} == {TYPE_UINT8}
    assert {t.data_type for t in config.output} == {TYPE_FP32}


@pytest.mark.parametrize("backend", BACKENDS)
def test_digest_and_hash_pair_it_with_the_bundle(tiny: Tiny, backend: Backend) -> None:
    contract = tiny.manifest.contract
    parameters = parse(contract, backend).parameters
    assert parameters[DIGEST_PARAMETER].string_value == contract.digest
    assert parameters[SHA256_PARAMETER].string_value == contract.head.sha256


def test_the_python_backend_learns_the_limits(tiny: Tiny) -> None:
    parameters = parse(tiny.manifest.contract, "python").parameters
    limits = {key: value.string_value for key, value in parameters.items() if "." in key}
    assert limits == {
        "channels.low": "0",
        "channels.high": "7",
        "channels.order": "strictly_ascending",
        "features.low": "0",
        "features.high": "255",
        "features.order": "any",
    }


def test_write_puts_both_where_triton_looks(tiny: Tiny, tmp_path: Path) -> None:
    contract = tiny.manifest.contract
    files = write(contract, tmp_path)
    assert files == tuple(tmp_path / contract.head.model / CONFIG_FILES[backend] for backend in BACKENDS)
    assert [file.read_text() for file in files] == [render(contract, backend) for backend in BACKENDS]


@pytest.mark.parametrize("manifest", SHIPPED, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("backend", BACKENDS)
def test_committed_files_are_rendered_from_the_shipped_bundle(manifest: Path, backend: Backend) -> None:
    contract = Manifest.load(manifest.parent).contract
    committed = ROOT / "triton_models" / contract.head.model / CONFIG_FILES[backend]
    assert committed.read_text() == render(contract, backend), "run export/to_onnx.py again"
