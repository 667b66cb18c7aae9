"""Does the exported pair compute what torch computes, and is a pruned channel really absent?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from dcp_sdk.bundles.manifest import BitsCost, ExportCost
from dcp_sdk.errors import BundleError

from .fused import DeviceGraph, HeadGraph, unpack
from .graphs import ancestors

__all__ = ["GARBAGE", "Parity", "compare", "cost_of_bits", "cost_of_half", "open_graph", "with_garbage"]

BATCH = 64
GARBAGE = "garbage"
"""Extra input of :func:`with_garbage`: float32 ``(N, C, h, w)``."""

Pictures = npt.NDArray[np.uint8]
_MOST_CHANGED = 0.05
"""Share of the answers that may change in half precision."""


@dataclass
class Parity:
    """What :func:`compare` found, torch in batches of 64 being the reference. Sums over all pictures."""

    pictures: int = 0
    mask_bits: int = 0
    """Bits compared in each of the three ways below: pictures x channels."""
    flips_torch_alone: int = 0
    """Mask bits that differ when torch sees each picture alone."""
    flips_onnx_alone: int = 0
    """Mask bits that differ when ONNX Runtime sees each picture alone."""
    flips_onnx_batch: int = 0
    """Mask bits that differ when ONNX Runtime sees batches of 64."""
    features_off_by_one: int = 0
    """Quantised values that differ by one step: rounding of numerical noise."""
    features_off_by_more: int = 0
    """Quantised values that differ by more. Must be 0."""
    probability_difference: float = 0.0
    """Largest difference of an answer to the same payload."""
    not_numbers: int = 0
    """Pictures whose answer holds something that is not a number: the training diverged. Must be 0."""

    def check(self) -> None:
        """Raise BundleError if the graphs are not what torch computes."""
        if self.not_numbers:
            raise BundleError(
                f"expected a trained network, got answers that are not numbers for {self.not_numbers} of "
                f"{self.pictures} pictures: the training diverged. Train again with a lower optim.learning_rate."
            )
        flips = self.flips_torch_alone + self.flips_onnx_alone + self.flips_onnx_batch
        if flips or self.features_off_by_more or self.probability_difference > 1e-4:
            found = ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))
            raise BundleError(f"expected the exported graphs to compute what torch computes, got {found}")


@torch.no_grad()
def compare(device: DeviceGraph, head: HeadGraph, device_file: Path, head_file: Path, pictures: Pictures) -> Parity:
    """Compare torch with ONNX Runtime on the CPU, picture by picture, with the same random numbers where there are any.

    Args:
        device: The device half, as it was exported.
        head: The server's half, as it was exported.
        device_file: The exported device graph.
        head_file: The exported head graph.
        pictures: uint8 ``(N, S, S, 3)``.
    """
    device_session, head_session = open_graph(device_file), open_graph(head_file)
    generator = np.random.default_rng(0)
    result = Parity()
    for batch in _batches(pictures):
        inputs = _inputs(device, batch, generator)
        one_by_one = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(len(batch))]
        channels, features = device_session.run(["channels", "features"], inputs)
        torch_channels, torch_features = _in_torch(device, inputs)
        expected = _bits(torch_channels, device.channels)
        torch_alone = np.concatenate([_in_torch(device, one)[0] for one in one_by_one])
        onnx_alone = np.concatenate([device_session.run(["channels"], one)[0] for one in one_by_one])
        result.pictures += len(batch)
        result.mask_bits += expected.size
        result.flips_torch_alone += int((_bits(torch_alone, device.channels) != expected).sum())
        result.flips_onnx_alone += int((_bits(onnx_alone, device.channels) != expected).sum())
        result.flips_onnx_batch += int((_bits(channels, device.channels) != expected).sum())
        steps = np.abs(_values(head, torch_features) - _values(head, features))
        result.features_off_by_one += int((steps == 1).sum())
        result.features_off_by_more += int((steps > 1).sum())
        (answer,) = head_session.run(None, {"channels": channels, "features": features})
        torch_answer = head(torch.from_numpy(channels.astype(np.int64)), torch.from_numpy(features)).numpy()
        finite = np.isfinite(torch_answer).all(1) & np.isfinite(answer).all(1)
        result.not_numbers += int((~finite).sum())
        difference = np.abs(answer[finite] - torch_answer[finite]).max(initial=0.0)
        result.probability_difference = max(result.probability_difference, float(difference))
    return result


def cost_of_bits(
    trained: tuple[DeviceGraph, HeadGraph],
    exported: tuple[DeviceGraph, HeadGraph],
    pictures: Pictures,
    labels: npt.NDArray[np.int64],
) -> BitsCost:
    """Compare the answers with fewer bits to those with the bits of the training, with the same random numbers.

    Args:
        trained: Both halves with the bits that the checkpoint was trained with.
        exported: The same with fewer.
        pictures: uint8 ``(N, S, S, 3)``.
        labels: Of the first pictures, those that the training did not see; may be empty.
    """
    before, after = (
        _answers(partial(_in_torch, device), device, head, pictures) for device, head in (trained, exported)
    )
    return BitsCost(trained_bits=trained[0].bits, **_cost(before, after, labels))


def cost_of_half(
    trained: tuple[DeviceGraph, HeadGraph], rounded: onnx.ModelProto, pictures: Pictures, labels: npt.NDArray[np.int64]
) -> ExportCost:
    """Compare the answers of a device graph in half precision to those in single, as :func:`cost_of_bits` does.

    Args:
        trained: Both halves as they are in torch.
        rounded: From :func:`export.half_client.with_rounded_client`.
        pictures: uint8 ``(N, S, S, 3)``.
        labels: Of the first pictures.

    Raises:
        BundleError: More than a twentieth of the answers change.
    """
    device, head = trained
    session = open_graph(rounded)
    before = _answers(partial(_in_torch, device), device, head, pictures)
    after = _answers(lambda inputs: session.run(["channels", "features"], inputs), device, head, pictures)
    cost = ExportCost(**_cost(before, after, labels))
    if cost.answers_changed > _MOST_CHANGED * cost.pictures:
        raise BundleError(
            f"expected a client network that bears half precision, but {cost.answers_changed} of {cost.pictures} "
            "answers change. Do without --half-client."
        )
    return cost


def with_garbage(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the device graph with :data:`GARBAGE` in place of every pruned channel's activations.

    All that reads ``activations`` after the mask is decided gets ``where(mask, activations, garbage)`` instead. If
    *hard means absent*, no value of the garbage can change a byte of the payload.
    """
    surgery = onnx.ModelProto()
    surgery.CopyFrom(model)
    graph = surgery.graph
    deciding = ancestors(graph, "channels")
    reader_inputs = [
        (node, index)
        for node in graph.node
        for index, name in enumerate(node.input)
        if name == "activations" and node.output[0] not in deciding
    ]
    if not reader_inputs:
        raise BundleError("expected a device graph in which something reads 'activations' after the mask")
    for node, index in reader_inputs:
        node.input[index] = "activations_or_garbage"
    graph.input.append(helper.make_tensor_value_info(GARBAGE, TensorProto.FLOAT, ["batch", "c", "h", "w"]))
    graph.initializer.extend(
        [
            helper.make_tensor("garbage_off_on", TensorProto.FLOAT, [2], [0.0, 1.0]),
            helper.make_tensor("garbage_slots", TensorProto.INT64, [1], [1]),
            helper.make_tensor("garbage_map", TensorProto.INT64, [2], [2, 3]),
        ]
    )
    substitute = [
        helper.make_node("Cast", ["channels"], ["garbage_ids"], to=TensorProto.INT64),
        helper.make_node("Shape", ["activations"], ["garbage_depth"], start=1, end=2),
        helper.make_node("OneHot", ["garbage_ids", "garbage_depth", "garbage_off_on"], ["garbage_one_hot"]),
        helper.make_node("ReduceSum", ["garbage_one_hot", "garbage_slots"], ["garbage_bits"], keepdims=0),
        helper.make_node("Cast", ["garbage_bits"], ["garbage_bools"], to=TensorProto.BOOL),
        helper.make_node("Unsqueeze", ["garbage_bools", "garbage_map"], ["garbage_mask"]),
        helper.make_node("Where", ["garbage_mask", "activations", GARBAGE], ["activations_or_garbage"]),
    ]
    # ONNX wants nodes in order of use: what decides the mask, the substitution, what packs.
    deciding_nodes = [node for node in graph.node if deciding.intersection(node.output)]
    packing_nodes = [node for node in graph.node if not deciding.intersection(node.output)]
    del graph.node[:]
    graph.node.extend([*deciding_nodes, *substitute, *packing_nodes])
    onnx.checker.check_model(surgery)
    return surgery


@torch.no_grad()
def _answers(
    run: Callable[[dict[str, npt.NDArray[Any]]], Sequence[npt.NDArray[Any]]],
    device: DeviceGraph,
    head: HeadGraph,
    pictures: Pictures,
) -> npt.NDArray[np.int64]:
    """Return the class number of each picture, where ``run`` is what the device does."""
    generator, answers = np.random.default_rng(0), []
    for batch in _batches(pictures):
        channels, features = run(_inputs(device, batch, generator))
        answers.append(head(torch.from_numpy(channels.astype(np.int64)), torch.from_numpy(features)).argmax(1).numpy())
    return np.concatenate(answers)


def _cost(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    right = [float(np.mean(found[: len(labels)] == labels)) if len(labels) else None for found in (before, after)]
    return {
        "pictures": len(before),
        "answers_changed": int((before != after).sum()),
        "labelled": len(labels),
        "accuracy_trained": right[0],
        "accuracy": right[1],
    }


def open_graph(graph: Path | onnx.ModelProto) -> ort.InferenceSession:
    """Open a graph with ONNX Runtime on the CPU."""
    source: Any = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    return ort.InferenceSession(source, providers=["CPUExecutionProvider"])


def _batches(pictures: Pictures) -> Iterator[Pictures]:
    for start in range(0, len(pictures), BATCH):
        yield pictures[start : start + BATCH]


def _inputs(device: DeviceGraph, batch: Pictures, generator: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    inputs: dict[str, npt.NDArray[Any]] = {"image": batch}
    if device.uniforms:
        inputs["noise"] = generator.random((len(batch), device.uniforms), np.float32)
    return inputs


def _values(head: HeadGraph, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole steps ``(N, k, h, w)`` out of what is sent."""
    steps: npt.NDArray[Any] = unpack(torch.from_numpy(features), head.bits, (head.kept, *head.shape[1:])).numpy()
    return steps


def _in_torch(device: DeviceGraph, inputs: dict[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    channels, features, *_ = device(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return channels.numpy(), features.numpy()


def _bits(channels: npt.NDArray[Any], count: int) -> npt.NDArray[np.bool_]:
    """Channel numbers ``(N, k)`` -> mask ``(N, C)``."""
    bits = np.zeros((len(channels), count), bool)
    np.put_along_axis(bits, channels.astype(np.int64), True, axis=1)
    return bits
