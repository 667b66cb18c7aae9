"""What a graph may hold before ONNX Runtime sees it: plain operators over tensors that lie in the file itself.

protobuf reads it, by a schema of our own that names what device and head graphs need. Whatever else ONNX knows (files
beside the graph, sub-graphs, functions, training, sparse tensors) is a field that this schema does not name, and
refused as such, together with all that later versions add. An own reader of the wire format would be as long, and could
disagree with the parser of ONNX Runtime, which is protobuf's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from os import PathLike
from typing import Any

from ..errors import BundleError

__all__ = ["OPERATORS", "check_graph", "check_hash", "constant_outputs"]

_EXPORTED = """
Add AveragePool Cast Clip Concat Conv Cos Div Expand Floor Gather GatherElements GatherND Gemm Greater Log MaxPool Mul
Pad ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round ScatterElements Shape Sign Slice Softmax Split
Sqrt Sub TopK Transpose Unsqueeze Where
"""
"""What the exporter writes for the client networks, pruners, defences and heads of training/."""
_KIN = """
Abs BatchNormalization Constant ConstantOfShape Erf Exp Flatten Gelu GlobalAveragePool GlobalMaxPool HardSigmoid
HardSwish Identity LayerNormalization LeakyRelu MatMul Max Min Neg OneHot Pow PRelu Reciprocal Sigmoid Squeeze Tanh
"""
"""What other networks of the same kind are made of."""

OPERATORS = frozenset(f"{_EXPORTED} {_KIN}".split())
"""Operators of ONNX's standard domain that a graph may use: each one a function of its inputs alone. None draws random
numbers (they come from the device, see ``contract.noise``), branches, loops, reads a file or handles text."""

_STANDARD = {b"", b"ai.onnx"}
"""Both names of the standard domain."""

# Field names, numbers and kinds of onnx.proto. Kinds in capitals are messages that are looked into; `bytes` also stands
# for messages that are of no interest here. Every field counts as repeated: a writer may give any of them twice.
_SCHEMA = {
    "Model": "ir_version=1:int64 producer_name=2:bytes producer_version=3:bytes domain=4:bytes model_version=5:int64 "
    "doc_string=6:bytes graph=7:Graph opset_import=8:Opset metadata_props=14:bytes",
    "Opset": "domain=1:bytes version=2:int64",
    "Graph": "node=1:Node name=2:bytes initializer=5:Tensor doc_string=10:bytes input=11:bytes output=12:bytes "
    "value_info=13:bytes metadata_props=16:bytes",
    "Node": "input=1:bytes output=2:bytes name=3:bytes op_type=4:bytes attribute=5:Attribute doc_string=6:bytes "
    "domain=7:bytes metadata_props=9:bytes",
    "Attribute": "name=1:bytes f=2:float i=3:int64 s=4:bytes t=5:Tensor floats=7:float ints=8:int64 strings=9:bytes "
    "tensors=10:Tensor doc_string=13:bytes type=20:int32",
    "Tensor": "dims=1:int64 data_type=2:int32 float_data=4:float int32_data=5:int32 int64_data=7:int64 name=8:bytes "
    "raw_data=9:bytes double_data=10:double uint64_data=11:uint64 doc_string=12:bytes data_location=14:int32 "
    "metadata_props=16:bytes",
}
_MESSAGES = {"Model": ("opset_import", "graph"), "Graph": ("node", "initializer"), "Node": ("attribute",)}
_MESSAGES |= {"Attribute": ("t", "tensors")}
_REFUSED = {
    ("Model", 20): "training information",
    ("Model", 25): "functions",
    ("Graph", 15): "sparse tensors",
    ("Attribute", 6): "a sub-graph",
    ("Attribute", 11): "sub-graphs",
    ("Attribute", 22): "sparse tensors",
    ("Attribute", 23): "sparse tensors",
    ("Tensor", 13): "data outside of its file",
}
"""Names of the likeliest of those that the schema leaves out, for messages."""


def check_hash(data: bytes, sha256: str, where: str | PathLike[str]) -> None:
    """Make sure that a file is the one that was exported.

    Args:
        data: Its content.
        sha256: 64 hexadecimal digits, from the contract.
        where: Names it in messages.

    Raises:
        BundleError: It is another.
    """
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise BundleError(
            f"{where}: expected SHA-256 {sha256[:12]}…, got {actual[:12]}…. "
            "The file is not the one that was exported; copy the bundle again."
        )


def check_graph(data: bytes, where: str | PathLike[str]) -> None:
    """Make sure that an ONNX file holds one graph of :data:`OPERATORS` over tensors inside the file, and no more.

    Args:
        data: The file's content.
        where: Names it in messages.

    Raises:
        BundleError: It is not an ONNX file, or holds anything else.
    """
    from google.protobuf.message import DecodeError

    model = _message_class()()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise BundleError(f"{where} is not an ONNX graph. Copy the bundle again.") from error
    if len(model.graph) != 1:
        raise _refuse(where, f"{len(model.graph)} graphs instead of one")
    if what := _stranger(model):
        raise _refuse(where, what)


def constant_outputs(data: bytes, outputs: Iterable[str]) -> frozenset[str]:
    """Find the outputs that are the same whatever the inputs hold: those computed from weights and shapes alone.

    Args:
        data: Content of an ONNX file that :func:`check_graph` let pass.
        outputs: Names of outputs of its graph.
    """
    model = _message_class()()
    model.ParseFromString(data)
    (graph,) = model.graph
    sources = {output.decode(): node for node in graph.node for output in node.output}
    weights = {name.decode() for tensor in graph.initializer for name in tensor.name}

    def depends(output: str) -> bool:
        waiting, seen = [output], set()
        while waiting:
            name = waiting.pop()
            if name in seen or name in weights or not name:  # an optional input that is left out has an empty name
                continue
            seen.add(name)
            if name not in sources:
                return True  # an input
            if sources[name].op_type != [b"Shape"]:
                waiting.extend(given.decode() for given in sources[name].input)
        return False

    return frozenset(output for output in outputs if not depends(output))


def _stranger(message: Any) -> str | None:
    """Say what in ``message`` no graph of ours needs; None if there is nothing."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    kind = message.DESCRIPTOR.name
    for field in UnknownFieldSet(message):
        return _REFUSED.get((kind, field.field_number), f"field {field.field_number} of an ONNX {kind}")
    if kind in {"Opset", "Node"} and not _STANDARD.issuperset(message.domain):
        return "operators that are not of ONNX's standard domain"
    if kind == "Node" and (len(message.op_type) != 1 or message.op_type[0].decode("latin-1") not in OPERATORS):
        return f"the operator {b' '.join(message.op_type)[:40].decode('latin-1')!r}"
    if kind == "Tensor" and any(message.data_location):
        return _REFUSED["Tensor", 13]
    parts = (part for name in _MESSAGES.get(kind, ()) for part in getattr(message, name))
    return next((what for part in parts if (what := _stranger(part))), None)


def _refuse(where: str | PathLike[str], what: str) -> BundleError:
    return BundleError(
        f"{where}: expected one graph of the operators in dcp_sdk/bundles/onnx_check.py, weights inside; "
        f"got {what}. Do not use this bundle, unless you trained it yourself: then add the operator there."
    )


@cache
def _message_class() -> Any:
    """Build the schema, in a pool of its own: the names of the ``onnx`` package stay free."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="dcp_onnx.proto", package="dcp_onnx")
    for kind, fields in _SCHEMA.items():
        message = file.message_type.add(name=kind)
        for field in fields.split():
            name, _, rest = field.partition("=")
            number, _, value = rest.partition(":")
            added = message.field.add(name=name, number=int(number), label=kinds.LABEL_REPEATED)
            if value in _SCHEMA:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".dcp_onnx.{value}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{value.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dcp_onnx.Model"))
