"""One deadline for every stage: camera, device graph, and what waits for them."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dcp_sdk import DeadlineExceeded, PrivateClient, Timeouts
from dcp_sdk.contract import TensorSpec, sha256_file
from dcp_sdk.deadline import Deadline
from dcp_sdk.preprocess import Image
from dcp_sdk.runtime import Graph
from tests.tiny import Tiny

TIME = TensorSpec(name="x", dtype="float32", shape=(1,), layout="K", low=0, high=1)


def endless_graph(path: Path) -> Graph:
    """Write a graph that multiplies large matrices for minutes."""
    steps = [f"step{number}" for number in range(400)]
    nodes = [helper.make_node("Mul", ["large", "x"], [steps[0]])]
    nodes += [helper.make_node("MatMul", [before, "large"], [after]) for before, after in itertools.pairwise(steps)]
    nodes += [helper.make_node("ReduceMean", [steps[-1]], ["mean"]), helper.make_node("Mul", ["x", "mean"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.full((2048, 2048), 1 / 2048, np.float32), "large")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    outputs = (TIME.model_copy(update={"name": "y"}),)
    return Graph(path.read_bytes(), sha256_file(path), where=path, inputs=(TIME,), outputs=outputs, device="cpu")


def test_a_graph_that_does_not_end_is_ended(tmp_path: Path) -> None:
    graph = endless_graph(tmp_path / "endless.onnx")
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"endless\.onnx"):
        graph.run({"x": np.float32([[1]])}, Deadline(0.3))
    assert time.monotonic() - start < 10


def test_a_call_without_time_sends_nothing(tiny: Tiny, picture: Image) -> None:
    timeouts = Timeouts(predict_s=1e-6)
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu", timeouts=timeouts) as client:
        with pytest.raises(DeadlineExceeded, match="Nothing was sent"):
            client.predict(picture)
