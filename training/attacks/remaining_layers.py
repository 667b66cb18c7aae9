"""The paper's adversary, trained afresh: the ResNet layers after the split, on the unpacked payload."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from ..config import OptimConfig
from ..networks import RemainingLayers
from ..payloads import Payloads
from ..schedule import learning_rate
from .base import AttackSettings, Guess

__all__ = ["remaining_layers"]

_BATCH = 128
_STEPS = 32
"""Steps of an epoch at least: few leaked pairs make smaller batches, not an adversary that hardly trains."""
_HELD_OUT = 0.1
"""Share of the leaked pairs that chooses the epoch to keep."""


def remaining_layers(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Train to read the sensitive class; of all epochs keep the one that is best on held-out leaked pairs.

    Values are divided by their standard deviation over the leaked pairs, and maps are mirrored at random.
    """
    torch.manual_seed(settings.seed)
    order = np.random.default_rng(settings.seed).permutation(len(leaked))
    held = max(settings.classes, round(_HELD_OUT * len(leaked)))
    chooser, pairs = leaked[order[:held]], leaked[order[held:]]
    unit = float(pairs.features.std()) * pairs.scale + 1e-9
    network = RemainingLayers(settings.network.arch, settings.network.split, settings.classes)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    batch_size = max(2, min(_BATCH, len(pairs) // _STEPS))
    plan = OptimConfig(epochs=settings.epochs, batch_size=batch_size, learning_rate=1e-3)
    steps = len(pairs) // batch_size
    best, best_loss = copy.deepcopy(network), float("inf")
    for epoch in track(range(settings.epochs), "remaining ResNet layers", transient=True):
        network.train()
        shuffled = np.random.default_rng((settings.seed, epoch)).permutation(len(pairs))
        for step in range(steps):
            batch = pairs[shuffled[step * batch_size : (step + 1) * batch_size]]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(plan, epoch * steps + step, steps)
            values = _mirrored(batch.dense() / unit)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(values.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), torch.from_numpy(batch.labels))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        held_loss = _loss(_logits(network, chooser, unit), chooser)
        if held_loss < best_loss:
            best, best_loss = copy.deepcopy(network), held_loss
    return Guess(
        probabilities=_logits(best, target, unit).softmax(1).numpy(),
        training_loss=_loss(_logits(best, pairs, unit), pairs),
    )


def _mirrored(values: Tensor) -> Tensor:
    chosen = torch.rand(len(values)) < 0.5
    values[chosen] = values[chosen].flip(-1)
    return values


@torch.no_grad()
def _logits(network: nn.Module, payloads: Payloads, unit: float) -> Tensor:
    network.eval()
    parts = []
    for start in range(0, len(payloads), 2 * _BATCH):
        batch = payloads[np.arange(start, min(start + 2 * _BATCH, len(payloads)))]
        parts.append(network((batch.dense() / unit).contiguous(memory_format=torch.channels_last)))
    return torch.cat(parts)


def _loss(logits: Tensor, payloads: Payloads) -> float:
    return float(F.cross_entropy(logits, torch.from_numpy(payloads.labels)))
