"""What lies under the noise, and what a server knows of it after many frames of one picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import shape_inference
from onnx.utils import Extractor
from rich.progress import track

from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.contract import Contract
from dcp_sdk.errors import ConfigError
from dcp_sdk.obfuscate import draw_uniform

from ..data import LabelledPictures
from ..defenses.noise import gaussian
from ..payloads import Payloads
from .motion import moved

__all__ = ["averages", "before_noise", "frames", "histogram", "require_noise"]

_BATCH = 64
_ROUNDING = 1e-5
_SAME = 0.99
"""Share of values, with given noise, in which graph and manifest agree to one step."""


def averages(
    bundle: Path, manifest: Manifest, pictures: LabelledPictures, counts: Sequence[int], *, moving: bool = False
) -> list[Payloads]:
    """Average the payloads of each picture over many frames with fresh noise: the most that noise can be undone.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest, whose contract has noise.
        pictures: With labels.
        counts: Numbers of frames, ascending.
        moving: Whether each frame is the picture :func:`moved`; otherwise all are the same picture.

    Returns:
        For each count, the mean over the frames in which a channel was kept; a channel that never was is 0.
    """
    assert list(counts) == sorted(set(counts))
    contract = manifest.contract
    shape = (len(pictures), contract.pruning.channels, *contract.values_shape[1:])
    sums, seen = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
    means = [np.zeros(shape, np.float32) for _ in counts]
    for rows, frame, channels, values in frames(bundle, manifest, pictures.pictures, counts[-1], moving=moving):
        _add(sums[rows], seen[rows], channels.astype(np.int64), values)
        if frame in counts:
            means[counts.index(frame)][rows] = sums[rows] / np.maximum(seen[rows], 1)[:, :, None, None]
    everything = np.tile(np.arange(shape[1]), (len(pictures), 1))
    return [
        Payloads(everything, mean, pictures.sensitive, pictures.task, shape[1], contract.pruning.scale)
        for mean in means
    ]


def histogram(
    bundle: Path, manifest: Manifest, pictures: npt.NDArray[np.uint8], count: int, *, moving: bool = False
) -> npt.NDArray[np.uint16]:
    """Count how often each value of a payload took each level over many frames of a picture: all that they tell.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest, whose contract has noise, and a mask that does not follow the picture.
        pictures: uint8 ``(N, S, S, 3)``.
        count: Number of frames.
        moving: As for :func:`averages`.

    Returns:
        ``(N, D, 2^bits)``, values in the order of a payload's.
    """
    contract = manifest.contract
    size, levels = math.prod(contract.values_shape), 2**contract.bits
    seen = np.zeros((len(pictures), size, levels), np.uint16)
    for rows, _, _, values in frames(bundle, manifest, pictures, count, moving=moving):
        steps = values.reshape(len(values), size).astype(np.int64)
        picture, value = np.ogrid[: len(values), :size]
        seen[rows][picture, value, steps] += 1
    return seen


def frames(
    bundle: Path,
    manifest: Manifest,
    pictures: npt.NDArray[np.uint8],
    count: int,
    *,
    moving: bool = False,
    held: bool = False,
) -> Iterator[tuple[slice, int, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Yield pictures, the number of their frame from 1 on, its kept channels and their values, some pictures at a time.

    The client network runs once for frames of a picture that stands still, and what draws the noise, chooses channels,
    rounds and packs runs for each frame. Both are the deployed graph, cut at ``activations``.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest, whose contract has noise.
        pictures: uint8 ``(N, S, S, 3)``.
        count: Number of frames.
        moving: As for :func:`averages`.
        held: Whether all frames of a picture get one draw of the noise. No device does that: it is for comparison.
    """
    contract = manifest.contract
    assert contract.noise is not None
    noise, rng = contract.noise, np.random.default_rng(0)
    first, second = _halves(bundle / DEVICE_GRAPH_FILE, contract.input.name, noise.name)
    starts = range(0, len(pictures), _BATCH)
    for start in track(starts, f"{manifest.name}: {count} frames", transient=True):
        rows = slice(start, start + _BATCH)
        drawn = None
        for frame in range(1, count + 1):
            if moving or frame == 1:
                seen = moved(pictures[rows], rng) if moving else pictures[rows]
                (activations,) = first.run(None, {contract.input.name: seen})
            if drawn is None or not held:
                drawn = draw_uniform((len(activations), *noise.shape))
            channels, features = second.run(None, {"activations": activations, noise.name: drawn})
            yield rows, frame, channels, contract.unpack(features)


def before_noise(bundle: Path, contract: Contract, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compute what pictures give before noise, by the deployed graph, cut at ``activations``.

    Args:
        bundle: Folder of the bundle.
        contract: Its contract, with noise, and a mask that does not follow the picture.
        pictures: uint8 ``(N, S, S, 3)``.

    Returns:
        ``(N, D)``, within 0..1, in the order of a payload's values.

    Raises:
        ConfigError: They are not.
    """
    assert contract.noise is not None
    first, second = _halves(bundle / DEVICE_GRAPH_FILE, contract.input.name, contract.noise.name)
    parts = [
        first.run(None, {contract.input.name: pictures[start : start + _BATCH]})[0]
        for start in track(range(0, len(pictures), _BATCH), "before noise", transient=True)
    ]
    values = np.concatenate(parts).astype(np.float64)
    if values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING:
        raise ConfigError(
            f"{bundle}: expected values within 0..1 before noise, got {values.min():.3g} to {values.max():.3g}: "
            "nothing that the noise guarantees would hold. Export the bundle again."
        )
    channels, _ = second.run(
        None, {"activations": parts[0][:1], contract.noise.name: draw_uniform((1, *contract.noise.shape))}
    )
    return values[:, channels[0].astype(np.int64)].reshape(len(values), -1)


def require_noise(bundle: Path, contract: Contract, deviation: float) -> None:
    """Refuse a device graph whose noise is not what its manifest says: every guarantee is about that.

    Args:
        bundle: Folder of the bundle.
        contract: Its contract, with noise, and a mask that does not follow the picture.
        deviation: Of the noise on values within 0..1, as the manifest's settings say.

    Raises:
        ConfigError: The graph draws other noise than that.
    """
    assert contract.noise is not None
    _, second = _halves(bundle / DEVICE_GRAPH_FILE, contract.input.name, contract.noise.name)
    _, *shape = next(one.shape for one in second.get_inputs() if one.name == "activations")
    # Where pictures lie, too: most values of an encoder that saturates are exactly 0 or 1.
    values = np.clip(np.random.default_rng(0).uniform(-0.5, 1.5, (_BATCH, *shape)), 0, 1).astype(np.float32)
    uniform = draw_uniform((_BATCH, *contract.noise.shape))
    channels, features = second.run(None, {"activations": values, contract.noise.name: uniform})
    noisy = values + deviation * gaussian(torch.from_numpy(uniform).view(_BATCH, 2, *shape)).numpy()
    expected = np.round(np.clip(noisy, 0, 1) * (2**contract.bits - 1))[:, channels[0].astype(np.int64)]
    same = np.abs(expected - contract.unpack(features)) <= 1  # the two round differently at times
    if same.mean() < _SAME:
        raise ConfigError(
            f"{bundle}: expected noise of deviation {deviation:.3g} in its device graph, as its manifest says, got "
            f"other noise ({same.mean():.0%} of {same.size} values are as they should be). Export the bundle again."
        )


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
