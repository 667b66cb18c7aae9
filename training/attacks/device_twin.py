"""``device.onnx`` as a torch module: who has the bundle can differentiate through the very graph that is deployed."""

from __future__ import annotations

import numpy as np
import onnx
import onnx2torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.utils import Extractor
from torch import Tensor, nn

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE, Bundle, BundleLike
from dcp_sdk.contract import Contract

__all__ = ["DeviceTwin"]

_SCORES = "scores"
_ACTIVATIONS = "activations"
_STATIC_AXES = {"ReduceMean", "ReduceMax", "ReduceMin"}
"""Since opset 18 their axes are an input; the converter only knows them as an attribute."""
_OPSET = 17


class DeviceTwin(nn.Module):
    """The deterministic part of a bundle's device graph, up to what is packed. Weights are frozen, pictures are not.

    Args:
        bundle: A bundle, or the path of its folder or archive. Noise that its graph adds is left out: an attacker
            matches what lies under it.
        contract: The bundle's.
        through_limits: Where values are cut to 0..1 before noise, let gradients pass as if they were not: whoever
            searches for a picture could never leave a value that is cut.

    Raises:
        NotImplementedError: The graph holds an operation that cannot be converted.
    """

    def __init__(self, bundle: BundleLike, contract: Contract, *, through_limits: bool = False) -> None:
        super().__init__()
        graph = shape_inference.infer_shapes(onnx.load_from_string(Bundle.of(bundle).read(DEVICE_GRAPH_FILE)))
        packed = _packed(graph.graph, contract.input.name)
        uncut, self._limits = _before_limits(graph.graph, packed) if through_limits else (packed, None)
        outputs = [uncut]
        if contract.pruning.rule == "dynamic":
            outputs.append(_SCORES)
        part = Extractor(graph).extract_model([contract.input.name], outputs)
        _store_weights_as_float(part.graph)
        _write_as_opset_17(part)
        self.network = onnx2torch.convert(part).eval().requires_grad_(False)
        self.scored = len(outputs) == 2

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute what the payload is made from.

        Args:
            pictures: float ``(N, 3, S, S)``, 0..1; need not be whole numbers of 1/255.

        Returns:
            float ``(N, C, h, w)``, what channels are gathered from; scores float ``(N, C)``, None unless they are a
            function of the picture.
        """
        result = self.network(pictures.permute(0, 2, 3, 1) * 255)
        values, scores = (result[0], result[1]) if self.scored else (result, None)
        if self._limits is not None:
            values = values + (values.clamp(*self._limits) - values).detach()
        return values, scores


def _packed(graph: onnx.GraphProto, picture: str) -> str:
    """Name the tensor whose channels are gathered, or the activations where noise or rounding lies between them.

    Neither lets a useful gradient through: an attacker matches what lies under it.
    """
    producers = {output: node for node in graph.node for output in node.output}
    random = {value.name for value in graph.input} - {picture}
    node = producers["features"]
    while node.op_type != "GatherElements":
        node = producers[node.input[0]]
    packed: str = node.input[0]
    waiting, seen = [packed], set[str]()
    while waiting:
        name = waiting.pop()
        if name in random or (name in producers and producers[name].op_type == "Round"):
            return _ACTIVATIONS
        if name in producers and name not in seen:
            waiting.extend(producers[name].input)
        seen.add(name)
    return packed


def _before_limits(graph: onnx.GraphProto, packed: str) -> tuple[str, tuple[float, float] | None]:
    """Name what is cut to give ``packed``, and between which limits; ``packed`` itself and None where nothing is."""
    (node,) = (node for node in graph.node if packed in node.output)
    constants = {constant.name: constant for constant in graph.initializer}
    if node.op_type != "Clip" or not all(name in constants for name in node.input[1:]):
        return packed, None
    low, high = (float(numpy_helper.to_array(constants[name])) for name in node.input[1:])
    return node.input[0], (low, high)


def _store_weights_as_float(graph: onnx.GraphProto) -> None:
    """Undo what saves space in the file: float16 weights and the casts behind them."""
    halves = {weight.name: weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT16}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]
    for cast in casts:
        weight = halves[cast.input[0]]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), cast.output[0]))
        graph.node.remove(cast)


def _write_as_opset_17(model: onnx.ModelProto) -> None:
    """Write reductions and reshapes as the converter knows them. Nothing else in a device graph changed its meaning."""
    constants = {constant.name: constant for constant in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _STATIC_AXES and len(node.input) == 2:
            axes = numpy_helper.to_array(constants[node.input.pop()]).tolist()
            kept = [attribute for attribute in node.attribute if attribute.name == "keepdims"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("axes", axes)])
        elif node.op_type == "Reshape":
            del node.attribute[:]  # allowzero: no side of ours is 0
    model.opset_import[0].version = _OPSET
