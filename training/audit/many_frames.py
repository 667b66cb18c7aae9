"""What lies under the noise, and what a server knows of it after many frames of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import shape_inference
from onnx.utils import Extractor
from rich.progress import track

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.contract import Contract
from dcp_sdk.obfuscate import draw_uniform

from ..data import LabelledPictures
from ..payloads import Payloads

__all__ = ["averages", "before_noise"]

_BATCH = 64


def averages(bundle: Path, manifest: Manifest, pictures: LabelledPictures, counts: Sequence[int]) -> list[Payloads]:
    """Average the payloads of each picture over many frames with fresh noise: the most that noise can be undone.

    The frames are the same picture: the client network runs once, and what draws the noise, chooses
    channels, rounds and packs runs for each frame. Both are the deployed graph, cut at ``activations``.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest, whose contract has noise.
        pictures: With labels.
        counts: Numbers of frames, ascending.

    Returns:
        For each count, the mean over the frames in which a channel was kept; a channel that never was is 0.
    """
    contract = manifest.contract
    assert contract.noise is not None
    assert list(counts) == sorted(set(counts))
    noise = contract.noise
    first, second = _halves(bundle / DEVICE_GRAPH_FILE, contract.input.name, noise.name)
    sides = contract.values_shape[1:]
    shape = (len(pictures), contract.pruning.channels, *sides)
    sums, seen = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
    means = [np.zeros(shape, np.float32) for _ in counts]
    starts = range(0, len(pictures), _BATCH)
    for start in track(starts, f"{manifest.name}: {counts[-1]} frames", transient=True):
        rows = slice(start, start + _BATCH)
        (activations,) = first.run(None, {contract.input.name: pictures.pictures[rows]})
        for frame in range(1, counts[-1] + 1):
            drawn = draw_uniform((len(activations), *noise.shape))
            channels, features = second.run(None, {"activations": activations, noise.name: drawn})
            _add(sums[rows], seen[rows], channels.astype(np.int64), contract.unpack(features))
            if frame in counts:
                means[counts.index(frame)][rows] = sums[rows] / np.maximum(seen[rows], 1)[:, :, None, None]
    everything = np.tile(np.arange(shape[1]), (len(pictures), 1))
    return [
        Payloads(everything, mean, pictures.sensitive, pictures.task, shape[1], contract.pruning.scale)
        for mean in means
    ]


def before_noise(bundle: Path, contract: Contract, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compute what pictures give before noise, by the deployed graph, cut at ``activations``.

    Args:
        bundle: Folder of the bundle.
        contract: Its contract, with noise, and a mask that does not follow the picture.
        pictures: uint8 ``(N, S, S, 3)``.

    Returns:
        ``(N, D)``, within 0..1, in the order of a payload's values.
    """
    assert contract.noise is not None
    first, second = _halves(bundle / DEVICE_GRAPH_FILE, contract.input.name, contract.noise.name)
    parts = [
        first.run(None, {contract.input.name: pictures[start : start + _BATCH]})[0]
        for start in track(range(0, len(pictures), _BATCH), "before noise", transient=True)
    ]
    values = np.concatenate(parts).astype(np.float64)
    channels, _ = second.run(
        None, {"activations": parts[0][:1], contract.noise.name: draw_uniform((1, *contract.noise.shape))}
    )
    return values[:, channels[0].astype(np.int64)].reshape(len(values), -1)


def _add(
    sums: npt.NDArray[np.float32],
    seen: npt.NDArray[np.float32],
    channels: npt.NDArray[np.int64],
    values: npt.NDArray[np.uint8],
) -> None:
    picture = np.arange(len(channels))[:, None]  # a channel appears once in a payload: no addition is lost
    sums[picture, channels] += values
    seen[picture, channels] += 1


def _halves(graph: Path, picture: str, noise: str) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    extractor = Extractor(shape_inference.infer_shapes(onnx.load(graph)))
    parts = (
        extractor.extract_model([picture], ["activations"]),
        extractor.extract_model(["activations", noise], ["channels", "features"]),
    )
    first, second = (
        ort.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"]) for part in parts
    )
    return first, second
