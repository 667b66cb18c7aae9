from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dcp_sdk import BundleError, ConfigError, RuntimeUnavailable
from dcp_sdk.contract import TensorSpec
from dcp_sdk.runtime import Graph, why_no_cuda

X = TensorSpec(name="x", dtype="float32", shape=(3,), layout="C", low=-10, high=10)
Y = TensorSpec(name="y", dtype="float32", shape=(3,), layout="C", low=0, high=10)


def save(path: Path, *, outputs: tuple[str, ...] = ("y",), batch: str | int = "batch", op: str = "Relu") -> str:
    """Write a graph ``y = op(x)`` and return its hash."""
    nodes = [helper.make_node(op, ["x"], [name]) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_runs_from_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    graph = Graph(path, save(path), inputs=(X,), outputs=(Y,), device="cpu", threads=1)
    failures: list[int] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).normal(size=(seed + 1, 3)).astype(np.float32)
        for _ in range(50):
            (y,) = graph.run({"x": x})
            if not np.array_equal(y, np.maximum(x, 0)):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_one_changed_byte_is_found_before_the_graph_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    sha256 = save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="expected SHA-256"):
        Graph(path, sha256, inputs=(X,), outputs=(Y,))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="FileNotFoundError"):
        Graph(tmp_path / "graph.onnx", "0" * 64, inputs=(X,), outputs=(Y,))


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BundleError, match="is not a graph"):
        Graph(path, hashlib.sha256(b"not a graph").hexdigest(), inputs=(X,), outputs=(Y,))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: save(path, outputs=("y", "z")), r"expected the outputs \['y'\], got \['y', 'z'\]"),
        (lambda path: save(path, outputs=("z",)), r"expected the outputs \['y'\], got \['z'\]"),
        (lambda path: save(path, batch=1), "fixed batch of 1"),
    ],
    ids=["one output more", "another output", "fixed batch"],
)
def test_other_tensors_than_agreed(write: Callable[[Path], str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    with pytest.raises(BundleError, match=says):
        Graph(path, write(path), inputs=(X,), outputs=(Y,))


@pytest.mark.parametrize("change", [{"dtype": "uint8", "high": 9}, {"shape": (4,)}, {"shape": (3, 1)}], ids=str)
def test_other_type_or_shape_than_agreed(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    with pytest.raises(BundleError, match="expected y to be"):
        Graph(path, save(path), inputs=(X,), outputs=(TensorSpec(**{**Y.model_dump(), **change}),))


def test_failing_run_is_typed(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    graph = Graph(path, save(path), inputs=(X,), outputs=(Y,), device="cpu")
    with pytest.raises(BundleError, match="failed while running"):
        graph.run({"x": np.zeros((1, 4), np.float32)})


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    sha256 = save(path)
    with pytest.raises(ConfigError, match="device"):
        Graph(path, sha256, inputs=(X,), outputs=(Y,), device="gpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads"):
        Graph(path, sha256, inputs=(X,), outputs=(Y,), threads=0)


def test_device_keeps_its_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "graph.onnx"
    sha256 = save(path)

    def provider(device: str) -> str:
        return Graph(path, sha256, inputs=(X,), outputs=(Y,), device=device).provider  # type: ignore[arg-type]

    assert provider("cpu") == "cpu"
    reason = why_no_cuda()
    if reason is None:
        assert provider("cuda") == provider("auto") == "cuda"
        return
    assert "device='cpu'" in reason
    with pytest.raises(RuntimeUnavailable) as caught:
        provider("cuda")
    assert reason in str(caught.value)
    assert provider("auto") == "cpu"
    assert capfd.readouterr() == ("", ""), "trying CUDA should not fill the terminal"


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or why_no_cuda() is None,
    reason="needs an ONNX Runtime with CUDA on a machine without",
)
def test_missing_library_is_named() -> None:
    reason = why_no_cuda()
    assert reason is not None
    assert "lib" in reason
    assert "cannot open shared object file" in reason
