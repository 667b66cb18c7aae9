"""The client network in half precision, for GPUs: everything after it, the pruner's scores too, stays in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from .graphs import ancestors

__all__ = ["with_half_trunk"]

_TRUNK_ENDS = "activations"


def with_half_trunk(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the device graph with its convolutions, and all between them and ``activations``, in float16.

    Pixels are normalised in float32 before, and ``activations`` are cast up again: what reads them is as it was.

    Args:
        model: From :func:`export.graphs.write_graph`.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    constants = dict(_constants(graph))
    inside, nodes, ready = set[str](), [], set[str]()
    leading = ancestors(graph, _TRUNK_ENDS)
    for node in graph.node:
        if leading.intersection(node.output) and (node.op_type == "Conv" or inside.intersection(node.input)):
            for index, name in enumerate(node.input):
                if name in inside or not name or not _is_float(name, constants):
                    continue
                node.input[index] = f"{name}.trunk"
                if name in ready:
                    continue
                ready.add(name)
                if name in constants:
                    values = constants[name].astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(values, f"{name}.trunk"))
                else:
                    nodes.append(helper.make_node("Cast", [name], [f"{name}.trunk"], to=TensorProto.FLOAT16))
            inside.update(node.output)
            if _TRUNK_ENDS in node.output:
                node.output[0] = f"{_TRUNK_ENDS}.trunk"
        nodes.append(node)
        if f"{_TRUNK_ENDS}.trunk" in node.output:
            nodes.append(helper.make_node("Cast", list(node.output), [_TRUNK_ENDS], to=TensorProto.FLOAT))
    _replace_nodes(graph, nodes)
    onnx.checker.check_model(half, full_check=True)
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
