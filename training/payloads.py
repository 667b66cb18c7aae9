"""What a server really receives, for a whole data set: the input of every attack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.guard import check_payload
from dcp_sdk.obfuscate import Obfuscator

from .data import LabelledPictures

__all__ = ["Payloads", "collect", "device_ms"]

_BATCH = 32
"""Pictures in one run of the device graph."""


@dataclass(frozen=True)
class Payloads:
    """Payloads of many pictures with the sensitive label of each: the leaked pairs of the threat model."""

    channels: npt.NDArray[np.integer]
    """Ascending channel numbers, ``(N, k)``."""
    features: npt.NDArray[np.uint8 | np.floating]
    """The kept channels, ``(N, k, h, w)``: quantised as they came, or mapped by an attacker."""
    labels: npt.NDArray[np.int64]
    """Sensitive class, ``(N,)``."""
    answers: npt.NDArray[np.int64]
    """Task class that the picture really has, ``(N,)``: what the server answers tells it, whatever is hidden."""
    total_channels: int
    """C."""
    scale: float
    """One step of the quantiser; 1 for mapped values."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: npt.NDArray[np.int64]) -> Payloads:
        return replace(
            self,
            channels=self.channels[index],
            features=self.features[index],
            labels=self.labels[index],
            answers=self.answers[index],
        )

    def __add__(self, other: Payloads) -> Payloads:
        """Put other payloads of the same bundle behind these."""
        return replace(
            self,
            channels=np.concatenate([self.channels, other.channels]),
            features=np.concatenate([self.features, other.features]),
            labels=np.concatenate([self.labels, other.labels]),
            answers=np.concatenate([self.answers, other.answers]),
        )

    def weights(self) -> npt.NDArray[np.float32]:
        """How much each pair counts for who learns from them, ``(N,)``, mean 1: each group of the attribute counts
        alike, and within it each answer that it has.

        Otherwise adversaries learn how attribute and answer go together among the leaked pairs, which other pictures
        need not share, and answer from the answer what little else a payload tells.
        """
        cells, cell, sizes = np.unique(
            np.stack([self.labels, self.answers]), axis=1, return_inverse=True, return_counts=True
        )
        _, group, answers = np.unique(cells[0], return_inverse=True, return_counts=True)
        each = len(self) / (len(answers) * answers[group] * sizes)
        return each[cell.ravel()].astype(np.float32)

    def batches(self, size: int) -> Iterator[Payloads]:
        """Cut into pieces of ``size``, in order."""
        for start in range(0, len(self), size):
            yield self[np.arange(start, min(start + size, len(self)))]

    def values(self) -> npt.NDArray[np.float32]:
        """Dequantise the kept channels: ``(N, k, h, w)``."""
        return self.features.astype(np.float32) * np.float32(self.scale)

    def dense(self) -> Tensor:
        """Unpack as the task head does: float32 ``(N, C, h, w)``, zero where a channel was pruned."""
        values = torch.from_numpy(self.values())
        index = torch.from_numpy(self.channels.astype(np.int64))[:, :, None, None].expand_as(values)
        return torch.zeros(len(self), self.total_channels, *values.shape[2:]).scatter_(1, index, values)

    def mask(self) -> npt.NDArray[np.float32]:
        """Which channels were kept, 0 or 1, ``(N, C)``."""
        bits = np.zeros((len(self), self.total_channels), np.float32)
        np.put_along_axis(bits, self.channels.astype(np.int64), 1.0, axis=1)
        return bits


def collect(bundle: Path, manifest: Manifest, pictures: LabelledPictures) -> Payloads:
    """Send pictures through ``device.onnx`` and the guard.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest.
        pictures: With labels.

    Raises:
        BundleError, PrivacyGuardError: As the client raises them.
    """
    contract = manifest.contract
    obfuscator = Obfuscator(bundle, contract)
    batches = [
        check_payload(contract, obfuscator.run(pictures.pictures[start : start + _BATCH]))
        for start in track(range(0, len(pictures), _BATCH), f"{manifest.name}: payloads", transient=True)
    ]
    channels, features = (np.concatenate(tensors) for tensors in zip(*batches, strict=True))
    values = contract.unpack(features)
    return Payloads(
        channels, values, pictures.sensitive, pictures.task, contract.pruning.channels, contract.pruning.scale
    )


def device_ms(bundle: Path, manifest: Manifest, pictures: npt.NDArray[np.uint8]) -> list[float]:
    """Time the device graph on each picture alone: what who watches the clock learns.

    Args:
        bundle: Folder of the bundle.
        manifest: Its manifest.
        pictures: uint8 ``(N, S, S, 3)``.
    """
    obfuscator = Obfuscator(bundle, manifest.contract)
    for warm_up in pictures[:20]:
        obfuscator.run(warm_up[None])
    times = []
    for picture in track(pictures, f"{manifest.name}: latency", transient=True):
        started = time.perf_counter()
        obfuscator.run(picture[None])
        times.append((time.perf_counter() - started) * 1000)
    return times
