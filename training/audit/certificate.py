"""What a bundle guarantees against any attacker: :mod:`training.audit.guarantees`, applied to its deployed graph."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor, nn

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Certificate
from dcp_sdk.contract import Contract

from ..attacks.device_twin import DeviceTwin
from ..attacks.reconstruction import as_tensor
from ..config import BottleneckConfig
from ..data import Splits
from .guarantees import (
    best_attacker,
    effective_pictures,
    gaussian_epsilon,
    rate_distortion_bound,
    reconstruction_bound,
)
from .many_frames import before_noise

__all__ = ["MOST_VALUES", "certify", "is_covered_by_noise", "smooth"]

_DELTA = 1e-5
_FRAMES = (1, 10, 100)
MOST_VALUES = 64
"""Values of a payload up to which the reconstruction bound is computed: each needs a gradient for each picture."""
_PICTURES = 2048
"""At which derivatives are taken: more of them only make the bound truer."""
_PRIOR = 1024
"""Pictures whose covariance the rate-distortion bound takes: fewer understate it a little."""
_NOTHING = 5e-5
"""Mean squared error below which it is not worth a line."""
_FARTHEST = math.sqrt(2 * 24 * math.log(2))
"""Standard deviations beyond which the device's noise, made of numbers of 24 bits, never lies."""
_SHARPNESS = 1000.0
"""Of the smooth stand-ins for ReLU and maximum; their derivatives exist everywhere, as the bound assumes."""
_BATCH = 64


def certify(bundle: Path, manifest: Manifest, neck: BottleneckConfig | None, splits: Splits) -> Certificate:
    """State what holds for any attacker.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest.
        neck: The network's bottleneck; without one, or without noise, only the capacity and what follows from it.
        splits: The prior is the training split's. Derivatives are taken at pictures of the validation split, at which
            values saturate less often than where they were learnt; they are the best attacker's population, too.
    """
    contract = manifest.contract
    count = math.prod(contract.values_shape)
    choices = math.comb(contract.pruning.channels, contract.pruning.kept)
    capacity = count * contract.bits + math.ceil(math.log2(choices))
    bound, pictures = rate_distortion_bound(_prior(splits, _PRIOR), capacity), None
    if neck is None or not is_covered_by_noise(contract, neck):
        return Certificate(capacity_bits=capacity, reconstruction_mse=bound if bound > _NOTHING else None)
    if count <= MOST_VALUES:
        least, effective = _reconstruction(DeviceTwin(bundle, contract), splits, neck.deviation)
        if least > bound:
            bound, pictures = least, effective
    values = before_noise(bundle, contract, splits.val.pictures)
    # Else some payloads of one picture are out of another's reach, which no epsilon covers.
    reaches = neck.deviation * _FARTHEST >= 1
    stated = _FRAMES if reaches else ()
    epsilons = {
        frames: round(gaussian_epsilon(math.sqrt(frames * count), neck.deviation, _DELTA), 2) for frames in stated
    }
    best = best_attacker(values, splits.val.sensitive, len(splits.sensitive.labels), neck.deviation, 2**contract.bits)
    return Certificate(
        capacity_bits=capacity,
        reconstruction_mse=bound,
        reconstruction_pictures=pictures,
        delta=_DELTA if epsilons else None,
        epsilons=epsilons,
        best_accuracy=best.accuracy,
        shuffled_accuracy=best.shuffled_accuracy,
        information_bits=best.information_bits,
        information_error=best.information_error,
        shuffled_bits=best.shuffled_bits,
        most_shuffled_accuracy=best.most_shuffled_accuracy,
        most_shuffled_bits=best.most_shuffled_bits,
    )


def is_covered_by_noise(contract: Contract, neck: BottleneckConfig | None) -> bool:
    """Whether each payload is noise on values of the picture, and nothing else: the mask tells nothing."""
    return neck is not None and neck.noise > 0 and contract.pruning.rule in ("none", "static")


def _prior(splits: Splits, most: int | None = None) -> npt.NDArray[np.float32]:
    """Pixels of what an attacker knows of pictures, ``(N, d)``."""
    return np.asarray(as_tensor(splits.train.pictures[:most]).flatten(1))


def _reconstruction(twin: DeviceTwin, splits: Splits, deviation: float) -> tuple[float, float]:
    pictures = splits.val.pictures
    stand_in = smooth(twin)
    some = pictures[np.random.default_rng(0).permutation(len(pictures))[:_PICTURES]]
    rows = []
    for start in track(range(0, len(some), _BATCH), "derivatives", transient=True):
        drawn = as_tensor(some[start : start + _BATCH]).requires_grad_()
        sums = stand_in(drawn)[0].flatten(1).sum(0)
        gradients = [torch.autograd.grad(value, drawn, retain_graph=True)[0].flatten(1).numpy() for value in sums]
        stacked = np.stack(gradients, axis=1)
        rows.append(stacked[stacked.any((1, 2))])  # most lie at the ends of the range, and show none
    jacobians = np.concatenate(rows)
    bound = reconstruction_bound(jacobians, _prior(splits), deviation, count=len(some))
    return bound, round(effective_pictures(jacobians), 1)


def smooth(twin: DeviceTwin) -> nn.Module:
    """Copy the network without its kinks."""
    twin = copy.deepcopy(twin)
    for name, module in list(twin.network.named_modules()):
        if isinstance(module, nn.ReLU):
            twin.network.set_submodule(name, nn.Softplus(beta=_SHARPNESS))
        elif isinstance(module, nn.MaxPool2d):
            twin.network.set_submodule(name, _SmoothMaximum(module))
    return twin


class _SmoothMaximum(nn.Module):
    """``log mean exp`` in place of a maximum, over the same windows. Values are not negative: borders are 0."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.unfold = nn.Unfold(pool.kernel_size, padding=pool.padding, stride=pool.stride)

    def forward(self, activations: Tensor) -> Tensor:
        count, channels = activations.shape[:2]
        windows = self.unfold(activations)
        windows = windows.view(count, channels, -1, windows.shape[2])
        soft = torch.logsumexp(_SHARPNESS * windows, 2) - math.log(windows.shape[2])
        side = math.isqrt(soft.shape[2])  # pictures are square
        return (soft / _SHARPNESS).view(count, channels, side, side)
