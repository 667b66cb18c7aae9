"""A training step with and without ``SmallMapConv2d``: ``python -m tests.benchmarks.small_maps``."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.record import record
from training.networks import RemainingLayers
from training.small_maps import with_plain_convolutions

BATCH, TURNS = 128, 12


def step_ms(network: nn.Module, maps: torch.Tensor, labels: torch.Tensor) -> float:
    """Forward and backward, in bfloat16 as in training."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(maps)
    F.cross_entropy(logits.float(), labels).backward()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Measure in turns on one thread, and record."""
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for size_px, side in ((64, 8), (112, 14)):
        networks = [RemainingLayers("resnet18", 6, 5), with_plain_convolutions(RemainingLayers("resnet18", 6, 5))]
        for network in networks:
            network.to(memory_format=torch.channels_last)
        maps = torch.randn(BATCH, 128, side, side).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(0, 5, (BATCH,))
        turns = [[step_ms(network, maps, labels) for network in networks] for _ in range(TURNS)][2:]
        ours, theirs = (statistics.median(times) for times in zip(*turns, strict=True))
        figures[f"{size_px} px"] = {"ms": round(ours), "plain_ms": round(theirs), "ratio": round(ours / theirs, 2)}
    record("small_maps", "python -m tests.benchmarks.small_maps", {"threads": 1, "batch": BATCH, **figures})


if __name__ == "__main__":
    main()
