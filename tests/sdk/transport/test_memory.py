from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dcp_sdk import ConfigError, ContractMismatch, DCPError, ServerRejected, ServerUnavailable
from dcp_sdk.contract import sha256_file
from dcp_sdk.serving import triton_config
from dcp_sdk.transport.memory import MemoryTransport
from tests import tiny as graph
from tests.tiny import Tiny

PAYLOAD = tuple(graph.payload(3).values())


def test_answers_as_the_head_does(tiny: Tiny) -> None:
    transport = MemoryTransport(tiny.repository)
    transport.connect(tiny.manifest.contract, 1)
    session = onnxruntime.InferenceSession(tiny.head, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(transport.infer(PAYLOAD, 1), session.run(None, graph.payload(3))[0])
    transport.close()
    transport.close()
    with pytest.raises(ConfigError, match="not connected"):
        transport.infer(PAYLOAD, 1)


def test_refuses_what_triton_would_refuse(tiny: Tiny) -> None:
    transport = MemoryTransport(tiny.repository)
    transport.connect(tiny.manifest.contract, 1)
    for bad in (PAYLOAD[0][:, ::-1], np.full_like(PAYLOAD[0], graph.CHANNELS), PAYLOAD[0].astype(np.float32)):
        with pytest.raises(ServerRejected, match="channels"):
            transport.infer((bad, PAYLOAD[1]), 1)


def replace(old: str, new: str) -> Callable[[Tiny, Tiny], None]:
    def edit(pair: Tiny, other: Tiny) -> None:
        config = pair.repository / "task_head" / "config.pbtxt"
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    return edit


DAMAGES: dict[str, tuple[Callable[[Tiny, Tiny], Any], type[DCPError], str]] = {
    "no repository": (lambda pair, _: shutil.rmtree(pair.repository), ServerUnavailable, "configuration at"),
    "no graph": (lambda pair, _: pair.head.unlink(), ServerUnavailable, "task head at"),
    "no configuration": (replace("name:", "no pbtxt"), ServerUnavailable, "ParseError"),
    "no digest": (replace("contract_digest", "another_key"), ContractMismatch, "digest .*, got none"),
    "other maximum batch": (
        replace("max_batch_size: 8", "max_batch_size: 4"),
        ContractMismatch,
        "batches up to 8",
    ),
    "other input": (replace('name: "features"', 'name: "values"'), ContractMismatch, "the inputs"),
    "other type": (replace("TYPE_FP32", "TYPE_FP64"), ContractMismatch, "the outputs"),
    "other shape": (replace("dims: [3, 4, 4]", "dims: [3, 4, 5]"), ContractMismatch, "the inputs"),
    "other graph": (lambda pair, other: shutil.copy(other.head, pair.head), ContractMismatch, "SHA-256"),
    "other pair": (
        lambda pair, other: shutil.copytree(other.repository, pair.repository, dirs_exist_ok=True),
        ContractMismatch,
        "digest",
    ),
}


def test_a_head_that_does_more_than_compute_is_refused_though_it_is_paired(broken: Tiny) -> None:
    model = onnx.load(broken.head)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    broken.head.write_bytes(model.SerializeToString())
    contract = graph.contract(broken.manifest.contract.device_sha256, sha256_file(broken.head))
    triton_config.write([contract], broken.repository)
    with pytest.raises(ContractMismatch, match="data outside of its file"):
        MemoryTransport(broken.repository).connect(contract, 1)


@pytest.mark.parametrize(("damage", "error", "says"), DAMAGES.values(), ids=DAMAGES)
def test_repository_that_is_not_the_paired_one(
    damage: Callable[[Tiny, Tiny], Any], error: type[DCPError], says: str, broken: Tiny, other: Tiny
) -> None:
    damage(broken, other)
    with pytest.raises(error, match=says):
        MemoryTransport(broken.repository).connect(broken.manifest.contract, 1)


def test_path_may_be_text_and_relative(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(tiny.repository).parent)
    transport = MemoryTransport("triton_models")
    transport.connect(tiny.manifest.contract, 1)
    assert transport.address == "memory://triton_models"
