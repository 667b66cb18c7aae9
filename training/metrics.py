"""Shares, their intervals, and on which machine they were measured."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from sklearn.metrics import confusion_matrix
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity as lpips
from torchmetrics.functional.image import peak_signal_noise_ratio as psnr
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from torchvision.models import AlexNet_Weights

from dcp_sdk.bundles.measurements import Z_95, Confusion, Interval

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "confusion",
    "hardware",
    "information_bits",
    "macro_auc",
    "mean_interval",
    "perceptual_distance",
    "ranked_classes",
    "similarity",
]

Labels = npt.NDArray[np.int64]
_PICTURES = 128
_FEWEST = 20
"""Pictures of a class below which nothing is known of how well it is ranked."""


def balanced_accuracy(predicted: Labels, truth: Labels) -> Interval:
    """Mean recall over the classes that occur, with its normal 95 % interval (recalls are independent binomials).

    Their variances are those of Agresti and Coull: a class that is always or never right is no certainty.

    Args:
        predicted: int64 ``(N,)``.
        truth: int64 ``(N,)``, N >= 1.
    """
    shares, variances = [], []
    for label in np.unique(truth):
        right = predicted[truth == label] == label
        shares.append(right.mean())
        moderate = (right.sum() + 2) / (len(right) + 4)
        variances.append(moderate * (1 - moderate) / (len(right) + 4))
    return _interval(float(np.mean(shares)), math.sqrt(sum(variances)) / len(shares))


def mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Average the results of one set of pictures over draws of the noise.

    The interval stays that of the pictures: other draws do not make them more.
    """
    low, value, high = np.mean([(one.low, one.value, one.high) for one in intervals], axis=0).tolist()
    return Interval(low=low, value=value, high=high)


def information_bits(probabilities: npt.NDArray[np.float32], truth: Labels) -> float:
    """Bits about the label that answers prove, >= 0, where all labels are equally frequent: their entropy less the
    answers' cross-entropy.

    A lower bound of the mutual information, up to sampling (Barber and Agakov, "The IM algorithm", NeurIPS 2003).

    Args:
        probabilities: float32 ``(N, classes)``.
        truth: int64 ``(N,)``, N >= 1.
    """
    labels = np.unique(truth)
    right = [np.log2(np.maximum(probabilities[truth == label, label], 1e-12)).mean() for label in labels]
    return max(0.0, math.log2(len(labels)) + float(np.mean(right)))


def accuracy(predicted: Labels, truth: Labels) -> Interval:
    """Share of right answers, with its normal 95 % interval."""
    share = float((predicted == truth).mean())
    return _interval(share, math.sqrt(share * (1 - share) / len(truth)))


def confusion(predicted: Labels, truth: Labels, labels: tuple[str, ...]) -> Confusion:
    """Count how often each class was taken for each."""
    counts = confusion_matrix(truth, predicted, labels=np.arange(len(labels)))
    return Confusion(labels=labels, counts=tuple(tuple(row) for row in counts.tolist()))


def ranked_classes(truth: Labels) -> Labels:
    """Return the classes whose areas :func:`macro_auc` averages: those of 20 pictures at least, with 20 of others."""
    labels, counts = np.unique(truth, return_counts=True)
    return np.asarray(labels[(counts >= _FEWEST) & (len(truth) - counts >= _FEWEST)], np.int64)


def macro_auc(probabilities: npt.NDArray[np.float32], truth: Labels) -> tuple[float, float] | None:
    """Area under the ROC curve of each class against the rest, averaged over :func:`ranked_classes`.

    Args:
        probabilities: float32 ``(N, classes)``.
        truth: int64 ``(N,)``.

    Returns:
        0..1, and its standard error by placements (DeLong, DeLong and Clarke-Pearson, Biometrics 1988), those of all
        classes taken together; None where no class has pictures enough.
    """
    if not len(present := ranked_classes(truth)):
        return None
    areas, moves = [], np.zeros(len(truth))
    for label in present:
        inside, scores = truth == label, probabilities[:, label]
        # The share of the other side that each picture is placed above, or below if it is of the rest; ties count half.
        among_all, among_own = rankdata(scores), np.zeros(len(truth))
        for side in (inside, ~inside):
            among_own[side] = rankdata(scores[side])
        own = np.where(inside, inside.sum(), (~inside).sum())
        placements = (among_all - among_own) / (len(truth) - own)
        placements[~inside] = 1 - placements[~inside]
        areas.append(placements[inside].mean())
        moves += (placements - areas[-1]) / np.sqrt(own * (own - 1))
    return float(np.mean(areas)), float(np.sqrt(np.square(moves).sum()) / len(present))


def similarity(drawn: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Compare reconstructions with the pictures, means over all.

    Args:
        drawn: uint8 ``(N, S, S, 3)``.
        truth: uint8 ``(N, S, S, 3)``.

    Returns:
        SSIM, -1..1, and PSNR in dB, both at a data range of 1.
    """
    shares: list[Any] = []
    decibels: list[Any] = []
    for ours, theirs in _pairs(drawn, truth):
        shares.append(ssim(ours, theirs, data_range=1.0, reduction="none"))
        decibels.append(psnr(ours, theirs, data_range=1.0, reduction="none", dim=(1, 2, 3)))
    return float(torch.cat(shares).mean()), float(torch.cat(decibels).mean())


def perceptual_distance(drawn: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> float | None:
    """LPIPS with AlexNet (Zhang et al. 2018), mean over all; 0 is identity.

    Args:
        drawn: uint8 ``(N, S, S, 3)``, S >= 32.
        truth: uint8 ``(N, S, S, 3)``.

    Returns:
        None unless torchvision's weights of AlexNet lie in ``torch.hub.get_dir()``: an audit downloads nothing.
    """
    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name).exists():
        return None
    distances: list[Any] = [
        lpips(ours, theirs, net_type="alex", reduction="none", normalize=True) for ours, theirs in _pairs(drawn, truth)
    ]
    return float(torch.cat(distances).mean())


def _pairs(drawn: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both as float32 ``(N, 3, S, S)`` in 0..1, some at a time."""
    for start in range(0, len(truth), _PICTURES):
        ours, theirs = (
            torch.from_numpy(pictures[start : start + _PICTURES]).permute(0, 3, 1, 2).float() / 255
            for pictures in (drawn, truth)
        )
        yield ours, theirs


def hardware() -> str:
    """Name this machine's processor, cores and operating system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def _interval(value: float, deviation: float) -> Interval:
    reach = Z_95 * deviation
    return Interval(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach))
