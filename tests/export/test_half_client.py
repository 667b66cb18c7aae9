"""The client network in half precision: nothing else changes, and what it costs is written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, shape_inference

from dcp_sdk import PrivateClient
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.errors import BundleError
from export.fused import halves
from export.graphs import ancestors
from export.half_client import with_half_client, with_rounded_client
from export.parity import cost_of_half, open_graph
from export.to_onnx import export
from tests.tiny import PAPER, SHIPPED
from tests.trained import Trained
from training.checkpoint import Checkpoint


@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda bundle: bundle.name)
def test_the_client_network_is_half_and_what_decides_the_mask_is_not(bundle: Path) -> None:
    model = onnx.load(bundle / DEVICE_GRAPH_FILE)
    graph = shape_inference.infer_shapes(with_half_client(model), strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    client = ancestors(graph, "activations.client")
    convolutions = [node for node in graph.node if node.op_type == "Conv" and client.intersection(node.output)]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert {types[name] for node in convolutions for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    after = {name for node in graph.node if not client.intersection(node.output) for name in node.output}
    stored = {name for name in after if name.endswith(".half")}
    assert TensorProto.FLOAT16 not in {types[name] for name in after - stored if name in types}
    assert [output.name for output in graph.output] == ["channels", "features"]


@pytest.mark.parametrize("bundle", [SHIPPED, PAPER], ids=lambda bundle: bundle.name)
def test_its_twin_for_the_cpu_rounds_after_each_operator_and_moves_a_payload_by_a_step(bundle: Path) -> None:
    model = onnx.load(bundle / DEVICE_GRAPH_FILE)
    rounded = with_rounded_client(model)
    rounded.graph.output.append(onnx.helper.make_tensor_value_info("activations", TensorProto.FLOAT, None))
    single, half = open_graph(model), open_graph(rounded)
    random = np.random.default_rng(0)
    inputs = {"image": random.integers(0, 256, (32, 112, 112, 3), np.uint8)}
    for extra in single.get_inputs()[1:]:
        inputs[extra.name] = random.random((32, *extra.shape[1:]), np.float32)
    channels, values = single.run(None, inputs)
    half_channels, half_values, activations = half.run(None, inputs)
    assert np.array_equal(activations, activations.astype(np.float16)), "ONNX Runtime took the rounding out"
    assert np.mean(channels != half_channels) < 0.01
    same = (channels == half_channels).all(axis=1)
    steps = np.abs(values[same].astype(int) - half_values[same])
    assert steps.any(), "it is the same graph"
    assert steps.max() <= 2
    assert np.mean(steps > 0) < 0.05


def test_what_half_precision_cannot_hold_is_refused(trained: Trained) -> None:
    """A weight beyond its range, and a network whose values overflow within."""
    model = onnx.load(trained.bundle / DEVICE_GRAPH_FILE)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    bias = next(weight for weight in model.graph.initializer if weight.name == first.input[2])
    values = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(values + np.float32(7e4), bias.name))
    with pytest.raises(BundleError, match="half precision can hold"):
        with_half_client(model)
    bias.CopyFrom(onnx.numpy_helper.from_array(values + np.float32(6e4), bias.name))
    halves_of_it = halves(Checkpoint.load(trained.checkpoint))
    pictures = np.random.default_rng(0).integers(0, 256, (64, *trained.manifest.contract.input.shape), np.uint8)
    with pytest.raises(BundleError, match="answers"):
        cost_of_half(halves_of_it, with_rounded_client(model), pictures, np.empty(0, np.int64))


def test_what_it_costs_is_written_down(trained: Trained, tmp_path: Path) -> None:
    bundle, repository = tmp_path / "bundle", tmp_path / "models"
    export(trained.checkpoint, bundle, repository, folder=None, pictures=96, half_client=True).check()
    cost = Manifest.load(bundle).provenance.half_client_cost
    assert cost is not None
    assert (cost.pictures, cost.labelled) == (96, 32)
    assert cost.accuracy is not None and cost.accuracy_trained is not None
    assert abs(cost.accuracy - cost.accuracy_trained) * cost.labelled <= cost.answers_changed
    price = f"in half precision: {cost.answers_changed} of 96 answers change"
    assert price in (bundle / "MODEL_CARD.md").read_text()
    assert trained.manifest.provenance.half_client_cost is None
    side = trained.manifest.contract.preprocessing.size_px
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    with (
        PrivateClient(bundle, f"memory://{repository}") as client,
        PrivateClient(trained.bundle, f"memory://{trained.repository}") as twin,
    ):
        assert client.predict(picture).probability == pytest.approx(twin.predict(picture).probability, abs=0.05)
