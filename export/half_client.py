"""The client network in half precision, for GPUs: everything after it, the pruner's scores too, stays in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from dcp_sdk.errors import BundleError

from .graphs import ancestors

__all__ = ["with_half_client", "with_rounded_client"]

_CLIENT_ENDS = "activations"


def with_half_client(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the device graph with its convolutions, and all between them and ``activations``, in float16.

    Pixels are normalised in float32 before, and ``activations`` are cast up again: what reads them is as it was.

    Args:
        model: From :func:`export.graphs.write_graph`.

    Raises:
        BundleError: A weight is too large for float16.
    """
    return _rewritten(model, rounded=False)


def with_rounded_client(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return what a GPU computes of :func:`with_half_client` as a graph for the CPU: rounded after each operator.

    ONNX Runtime has no float16 kernels for the CPU. It computes such a graph in float32, and takes the casts in
    between out again: it would show neither what rounding does nor what overflows.
    """
    return _rewritten(model, rounded=True)


def _rewritten(model: onnx.ModelProto, *, rounded: bool) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = dict(_constants(graph))
    leading = ancestors(graph, _CLIENT_ENDS)
    inside, ready, nodes = set[str](), set[str](), []
    for node in graph.node:
        if not (leading.intersection(node.output) and (node.op_type == "Conv" or inside.intersection(node.input))):
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name in inside or not name or not _is_float(name, constants):
                continue
            node.input[index] = inner = f"{name}.client"
            if inner in ready:
                continue
            ready.add(inner)
            if name in constants:
                values = _as_half(constants[name], name)
                graph.initializer.append(
                    numpy_helper.from_array(values.astype(np.float32) if rounded else values, inner)
                )
            else:
                nodes += _rounding(name, inner) if rounded else [_cast(name, inner, TensorProto.FLOAT16)]
        inside.update(node.output)
        (output,) = node.output
        nodes.append(node)
        if rounded:
            node.output[0] = f"{output}.exact"
            nodes += _rounding(f"{output}.exact", output)
        elif output == _CLIENT_ENDS:
            node.output[0] = f"{output}.client"
            nodes.append(_cast(f"{output}.client", output, TensorProto.FLOAT))
    _replace_nodes(graph, nodes)
    onnx.checker.check_model(result, full_check=True)
    return result


def _cast(name: str, to: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [to], to=kind)


def _rounding(name: str, to: str) -> list[onnx.NodeProto]:
    return [_cast(name, f"{to}.rounded", TensorProto.FLOAT16), _cast(f"{to}.rounded", to, TensorProto.FLOAT)]


def _as_half(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half: npt.NDArray[np.float16] = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise BundleError(
            f"expected weights that half precision can hold (up to 65,504), got larger ones in {name}. "
            "Do without --half-client."
        )
    return half


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Give the weights by the name that the nodes know: one that is stored as float16 by that of its cast."""
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    yield from weights.items()
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:
            yield node.output[0], weights[node.input[0]]


def _is_float(name: str, constants: Mapping[str, npt.NDArray[Any]]) -> bool:
    return name not in constants or constants[name].dtype.kind == "f"  # else a shape, or axes


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Let the graph have these nodes, without casts and weights that none of them reads any more."""
    outputs = {output.name for output in graph.output}
    used = outputs.union(*(node.input for node in nodes))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes if used.intersection(node.output)]
    used = set().union(*(node.input for node in kept))
    weights = [weight for weight in graph.initializer if weight.name in used]
    stored = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(stored)
