"""The rendered configuration says what the contract says, and the committed files are such renderings."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_UINT8, ModelConfig, ModelInstanceGroup

from dcp_sdk import PrivateClient
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.contract import Contract, digest_parameter
from dcp_sdk.serving import TritonServer
from dcp_sdk.serving.repository import ModelRepository
from dcp_sdk.serving.triton_config import CONFIG_FILES, Backend, files, render, sha256_parameter, write
from tests.tiny import PAPER, ROOT, SHIPPED, SIZE, Tiny, write_retrained, write_tiny

BACKENDS: tuple[Backend, ...] = ("onnxruntime", "tensorrt", "python")


def parse(contract: Contract, backend: Backend) -> ModelConfig:
    """Render and read back, as Triton does."""
    return text_format.Parse(render([contract], backend), ModelConfig())


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_are_those_of_the_contract(tiny: Tiny, backend: Backend) -> None:
    contract = tiny.manifest.contract
    config = parse(contract, backend)
    assert config.name == contract.head.model
    assert config.backend == ("python" if backend == "python" else "onnxruntime")
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
    assert parameters[digest_parameter(1)].string_value == contract.digest
    assert parameters[sha256_parameter(1)].string_value == contract.head.sha256


def test_the_python_backend_learns_the_limits(tiny: Tiny) -> None:
    parameters = parse(tiny.manifest.contract, "python").parameters
    limits = {key: value.string_value for key, value in parameters.items() if key.startswith(("channels", "features"))}
    assert limits == {
        "channels.low": "0",
        "channels.high": "7",
        "channels.order": "strictly_ascending",
        "features.low": "0",
        "features.high": "255",
        "features.order": "any",
    }


def test_write_puts_all_where_triton_looks(tiny: Tiny, tmp_path: Path) -> None:
    contract = tiny.manifest.contract
    write([contract], tmp_path)
    for backend in BACKENDS:
        assert (tmp_path / contract.head.model / CONFIG_FILES[backend]).read_text() == render([contract], backend)
    assert list(files([contract]))[-1] == "config.pbtxt", "a server that polls sees a model only when all else is there"


def test_several_versions_share_one_configuration(tmp_path: Path) -> None:
    """Each device finds the digest of its own contract: parameters belong to the model, not to a version."""
    first = write_tiny(tmp_path)
    contracts = [first.manifest.contract, write_retrained(first, tmp_path / "retrained").manifest.contract]
    config = text_format.Parse(render(contracts[::-1], "python"), ModelConfig())
    assert list(config.version_policy.specific.versions) == [1, 2]
    for contract in contracts:
        version = contract.head.version
        assert config.parameters[digest_parameter(version)].string_value == contract.digest
        assert config.parameters[sha256_parameter(version)].string_value == contract.head.sha256


def test_what_is_committed_is_rendered_from_the_shipped_bundles() -> None:
    contracts = [Manifest.load(bundle).contract for bundle in (SHIPPED, PAPER)]
    assert list(ModelRepository(ROOT / "triton_models").verify(contracts)) == [], "run dcp repository verify"


@pytest.mark.triton
def test_triton_takes_the_production_configuration(tiny: Tiny, tmp_path: Path) -> None:
    """Batching, warm-up and accelerator are read by a real Triton, here with the Python backend under them."""
    contract = tiny.manifest.contract
    repository = shutil.copytree(tiny.repository, tmp_path / "models")
    config = parse(contract, "tensorrt")  # the other one, and the accelerator
    config.backend, config.instance_group[0].kind = "python", ModelInstanceGroup.KIND_CPU
    config.MergeFrom(ModelConfig(parameters=parse(contract, "python").parameters))
    (repository / contract.head.model / CONFIG_FILES["python"]).write_text(text_format.MessageToString(config))
    with (
        TritonServer(repository, venv=ROOT / ".venv-triton") as server,
        PrivateClient(tiny.bundle, server.grpc_address, device="cpu") as client,
    ):
        assert client.predict(np.zeros((SIZE, SIZE, 3), np.uint8)).sends == 1
