from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as _ort

from dcp_sdk import BundleError, ConfigError, RuntimeUnavailable, runtime
from dcp_sdk.config import Device
from dcp_sdk.contract import TensorSpec
from dcp_sdk.runtime import Graph, why_no_cuda

X = TensorSpec(name="x", dtype="float32", shape=(3,), layout="C", low=-10, high=10)
Y = TensorSpec(name="y", dtype="float32", shape=(3,), layout="C", low=0, high=10)


WHERE = Path("graph.onnx")


def build(*, outputs: tuple[str, ...] = ("y",), batch: str | int = "batch", op: str = "Relu") -> bytes:
    """Return a graph ``y = op(x)`` as a file holds it."""
    nodes = [helper.make_node(op, ["x"], [name]) for name in outputs]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def load(data: bytes, *, output: TensorSpec = Y, device: Device = "auto", threads: int | None = None) -> Graph:
    """Open a graph under its own hash."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Graph(data, sha256, where=WHERE, inputs=(X,), outputs=(output,), device=device, threads=threads)


def test_runs_from_many_threads() -> None:
    graph = load(build(), device="cpu", threads=1)
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


def test_one_changed_byte_is_found_before_the_graph_is_parsed() -> None:
    data = build()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    with pytest.raises(BundleError, match="expected SHA-256"):
        Graph(bytes(changed), hashlib.sha256(data).hexdigest(), where=WHERE, inputs=(X,), outputs=(Y,))


def test_a_file_that_is_no_graph() -> None:
    with pytest.raises(BundleError, match="is not an ONNX graph"):
        load(b"not a graph")


def test_a_graph_that_could_do_more_than_compute_is_not_even_opened() -> None:
    with pytest.raises(BundleError, match="'RandomUniformLike'"):
        load(build(op="RandomUniformLike"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (build(outputs=("y", "z")), r"expected the outputs \['y'\], got \['y', 'z'\]"),
        (build(outputs=("z",)), r"expected the outputs \['y'\], got \['z'\]"),
        (build(batch=1), "fixed batch of 1"),
    ],
    ids=["one output more", "another output", "fixed batch"],
)
def test_other_tensors_than_agreed(data: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        load(data)


@pytest.mark.parametrize("change", [{"dtype": "uint8", "high": 9}, {"shape": (4,)}, {"shape": (3, 1)}], ids=str)
def test_other_type_or_shape_than_agreed(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="expected y to be"):
        load(build(), output=TensorSpec(**{**Y.model_dump(), **change}))


def test_failing_run_is_typed() -> None:
    with pytest.raises(BundleError, match="failed while running"):
        load(build(), device="cpu").run({"x": np.zeros((1, 4), np.float32)})


def test_memory_that_ran_out_is_no_fault_of_the_bundle() -> None:
    """The graph asks for more than any machine can address."""
    nodes = [
        helper.make_node("Expand", ["x", "huge"], ["large"]),
        helper.make_node("ReduceMax", ["large", "axes"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "greedy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [
            helper.make_tensor("huge", TensorProto.INT64, [4], [1 << 24, 1 << 24, 1, 3]),
            helper.make_tensor("axes", TensorProto.INT64, [2], [0, 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(RuntimeUnavailable, match=r"memory for a run of graph\.onnx"):
        load(model.SerializeToString(), device="cpu").run({"x": np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(_ort).values() if isinstance(kind, type) and issubclass(kind, Exception)],
    ids=lambda kind: kind.__name__,
)
def test_whatever_onnx_runtime_raises_is_typed(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> tuple[()]:
        raise kind("said by ONNX Runtime")

    graph = load(build(), device="cpu")
    monkeypatch.setattr(graph, "_run", fails)
    reset = kind.__name__ == "DeviceReset"
    error, words = (RuntimeUnavailable, "was reset") if reset else (BundleError, "failed while running")
    with pytest.raises(error, match=words):
        graph.run({"x": np.zeros((1, 3), np.float32)})
    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(BundleError, match="is not a graph that onnxruntime"):
        load(build(), device="cpu")


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="device"):
        load(build(), device="gpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads"):
        load(build(), threads=0)


def test_device_keeps_its_word(capfd: pytest.CaptureFixture[str]) -> None:
    def provider(device: Device) -> str:
        return load(build(), device=device).provider

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


def test_what_fails_on_the_gpu_fails_when_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def session(graph: bytes, *_: object, **__: object) -> onnxruntime.InferenceSession:
        """Open on the CPU, so that tensors in the memory of a GPU are its fault."""
        monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", no_memory)
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def no_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runtime, "_gpu_session", session)
    with pytest.raises(RuntimeUnavailable, match=r"out of memory\. Choose"):
        load(build(), device="cuda")
    assert load(build(), device="auto").provider == "cpu"


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or why_no_cuda() is None,
    reason="needs an ONNX Runtime with CUDA on a machine without",
)
def test_missing_library_is_named() -> None:
    reason = why_no_cuda()
    assert reason is not None
    assert "lib" in reason
    assert "cannot open shared object file" in reason
