"""Modules to ONNX files: dynamo exporter, free batch, float16 weights, checked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import opset20 as op
from torch import Tensor, nn

from dcp_sdk.bundles.onnx_check import check_graph

__all__ = ["OPSET", "ancestors", "write_graph"]

OPSET = 20
_IR_VERSION = 10  # what Triton 24.10's ONNX Runtime reads
_SMALLEST_HALF = 1024
"""Weights with fewer elements stay float32: nothing to gain."""


def write_graph(
    module: nn.Module, example: dict[str, Tensor], outputs: Sequence[str], internal: Sequence[str], path: Path
) -> None:
    """Export ``module`` to ``path``.

    Args:
        module: In evaluation mode; returns ``outputs`` and then ``internal`` tensors.
        example: Inputs by name, with a batch of at least 2.
        outputs: Names of the graph's outputs.
        internal: Names given to further returned tensors. They stay inside: the graph does not output them.
        path: The ``.onnx`` file, weights inside.

    Raises:
        BundleError: The graph holds something that a device refuses.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; the checker and parity judge the result
        program = torch.onnx.export(
            module,
            kwargs=example,
            input_names=list(example),
            output_names=[*outputs, *internal],
            dynamic_shapes={name: {0: batch} for name in example},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = _IR_VERSION
    del model.graph.output[len(outputs) :]
    del model.graph.value_info[:], model.metadata_props[:]
    for node in model.graph.node:  # source lines and paths of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    _store_weights_as_half(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    check_graph(path.read_bytes(), path)  # as each device will


def ancestors(graph: onnx.GraphProto, name: str) -> set[str]:
    """Return ``name`` and all the tensors that it is computed from."""
    producers = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        tensor = waiting.pop()
        if tensor not in found:
            found.add(tensor)
            waiting.extend(producers[tensor].input if tensor in producers else ())
    return found


def _stable_sort(value: Any, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """aten.sort.stable, which the exporter lacks: a TopK of everything, whose ties go to the lower index."""
    length: Any = op.Gather(op.Shape(value), op.Constant(value_ints=[dim]))  # type: ignore[type-var]
    return op.TopK(value, length, axis=dim, largest=int(descending), sorted=1)


def _store_weights_as_half(model: onnx.ModelProto) -> None:
    """Store large float32 weights as float16 and cast them up; ONNX Runtime folds the cast when it loads the graph.

    Lossless, since the weights were rounded to float16 before (:func:`export.fused.halves`).
    """
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < _SMALLEST_HALF:
            continue
        values = numpy_helper.to_array(weight)
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue  # not a rounded weight: keep it exact
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
