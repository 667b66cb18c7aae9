"""Graphs that do more than compute are refused; the ``onnx`` package is the judge of what was let in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper

from dcp_sdk import BundleError, PrivateClient
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.onnx_check import OPERATORS, check_graph
from dcp_sdk.contract import sha256_file
from tests import tiny as graph
from tests.tiny import ROOT, Tiny

TINY = graph.device_graph(np.random.default_rng(0))


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("bundles/*/device.onnx"), *ROOT.glob("triton_models/*/1/model.onnx")]),
    ids=lambda path: path.parts[-3],
)
def test_shipped_graphs_pass(path: str) -> None:
    check_graph((ROOT / path).read_bytes(), path)


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_an_operator_is_a_function_of_its_inputs_without_sub_graphs(operator: str) -> None:
    schema = onnx.defs.get_schema(operator, 20)
    assert schema.node_determinism != onnx.defs.OpSchema.NodeDeterminism.NonDeterministic
    kinds = {attribute.type for attribute in schema.attributes.values()}
    assert not kinds & {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}


def external(tensor: TensorProto, location: str = "/etc/passwd") -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def outside(model: onnx.ModelProto) -> None:
    external(model.graph.initializer[0])


def in_memory(model: onnx.ModelProto) -> None:
    """Name an address of the process: ONNX Runtime's own way to hand tensors over."""
    external(model.graph.initializer[0], "*/_ORT_MEM_ADDR_/*")


def outside_without_a_place(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def outside_in_an_attribute(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0]))
    external(node.attribute[0].t)
    model.graph.node.append(node)


def outside_in_a_list(model: onnx.ModelProto) -> None:
    attribute = AttributeProto(name="x", type=AttributeProto.TENSORS)
    external(attribute.tensors.add())
    model.graph.node[0].attribute.append(attribute)


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def custom_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def other_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "RandomNormalLike"


def loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", [], [], body=helper.make_graph([], "body", [], [])))


def sub_graph(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("x", helper.make_graph([], "body", [], [])))


def sub_graphs(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("x", [helper.make_graph([], "body", [], [])]))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [], model.opset_import))


def training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def quantised(model: onnx.ModelProto) -> None:
    model.graph.quantization_annotation.add()


ATTACKS: dict[Callable[[onnx.ModelProto], None], str] = {
    outside: "data outside of its file",
    in_memory: "data outside of its file",
    outside_without_a_place: "data outside of its file",
    outside_in_an_attribute: "data outside of its file",
    outside_in_a_list: "data outside of its file",
    custom_operator: "not of ONNX's standard domain",
    custom_domain: "not of ONNX's standard domain",
    other_operator: "the operator 'RandomNormalLike'",
    loop: "the operator 'Loop'",
    sub_graph: "a sub-graph",
    sub_graphs: "sub-graphs",
    function: "functions",
    training: "training information",
    sparse: "sparse tensors",
    quantised: "field 14 of an ONNX Graph",
}


@pytest.mark.parametrize(("spoil", "says"), ATTACKS.items(), ids=lambda value: getattr(value, "__name__", None))
def test_attack_is_refused(spoil: Callable[[onnx.ModelProto], None], says: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(TINY)
    check_graph(model.SerializeToString(), "x.onnx")
    spoil(model)
    with pytest.raises(BundleError, match=f"got .*{says}"):
        check_graph(model.SerializeToString(), "x.onnx")


@pytest.mark.parametrize("spoil", ATTACKS, ids=lambda spoil: spoil.__name__)
def test_attack_in_a_second_part_is_refused(spoil: Callable[[onnx.ModelProto], None]) -> None:
    """Two messages, one after the other, are one message to protobuf: the second adds to the first, or overrules it."""
    model = onnx.ModelProto()
    model.CopyFrom(TINY)
    spoil(model)
    for data in (TINY.SerializeToString() + model.SerializeToString(), model.SerializeToString() * 2):
        with pytest.raises(BundleError):
            check_graph(data, "x.onnx")


@pytest.mark.parametrize("data", [b"", b"\x08", b"\xff" * 100, b"\x3a\x00\x3a\x00", b"\x0b" * 10_000], ids=range(5))
def test_what_is_no_graph(data: bytes) -> None:
    with pytest.raises(BundleError):
        check_graph(data, "x.onnx")


def test_a_client_refuses_before_it_opens_the_graph(broken: Tiny) -> None:
    """Though hash and contract fit: whoever wrote the graph wrote the manifest too."""
    path = broken.bundle / "device.onnx"
    model = onnx.load(path)
    outside(model)
    path.write_bytes(model.SerializeToString())
    contract = broken.manifest.contract.model_copy(update={"device_sha256": sha256_file(path)})
    Manifest(name="evil", contract=contract, provenance=broken.manifest.provenance).save(broken.bundle)
    with pytest.raises(BundleError, match=r"device\.onnx: .* data outside of its file"):
        PrivateClient(broken.bundle, f"memory://{broken.repository}")


def messages(message: Message) -> Iterator[Any]:
    """Yield a protobuf message and all that it holds."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from messages(part)


def harmless(model: onnx.ModelProto) -> bool:
    """Say the same as ``check_graph``, through the generated classes of the ``onnx`` package."""
    standard = {"", "ai.onnx"}
    checks: dict[str, Callable[[Any], bool]] = {
        "ModelProto": lambda part: not part.functions and not part.training_info,
        "NodeProto": lambda part: part.op_type in OPERATORS and part.domain in standard,
        "OperatorSetIdProto": lambda part: part.domain in standard,
        "TensorProto": lambda part: not part.external_data and not part.data_location,
        "SparseTensorProto": lambda part: False,
    }
    kinds = [(part.DESCRIPTOR.name, part) for part in messages(model)]
    graphs = sum(kind == "GraphProto" for kind, _ in kinds)
    return graphs == 1 and all(checks[kind](part) for kind, part in kinds if kind in checks)


def without_weights() -> bytes:
    """Return a graph that is mostly structure, so that edits hit something."""
    model = onnx.ModelProto()
    model.CopyFrom(TINY)
    for tensor in model.graph.initializer:
        tensor.raw_data = tensor.raw_data[:8]
    data: bytes = model.SerializeToString()
    return data


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """Cut, copy, and overwrite stretches of a real graph."""
    places = st.integers(0, len(data))
    pieces = st.binary(max_size=8) | st.tuples(places, st.integers(0, 60)).map(lambda cut: data[cut[0] : sum(cut)])
    edits = st.lists(st.tuples(places, st.integers(0, 8), pieces), min_size=1, max_size=3)

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        result = data
        for place, length, piece in edits:
            result = result[:place] + piece + result[place + length :]
        return result

    return edits.map(apply)


@given(st.binary() | mutated(without_weights()))
def test_whatever_passes_is_harmless_to_another_parser_too(data: bytes) -> None:
    try:
        check_graph(data, Path("x.onnx"))
    except BundleError:
        return
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return  # nothing to run
    assert harmless(model)
