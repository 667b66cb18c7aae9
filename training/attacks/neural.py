"""One training for every adversary that learns by gradient: search, early stopping, and no silent failure."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor, nn

from ..config import OptimConfig
from ..payloads import Payloads
from ..schedule import learning_rate as scheduled
from .base import Attack, AttackSettings, Guess, hold_out
from .scaling import SCALINGS

__all__ = ["MakeNetwork", "forward", "neural"]

MakeNetwork = Callable[[tuple[int, int, int], AttackSettings], nn.Module]
"""``((C, h, w), settings)`` -> network from float32 ``(N, C, h, w)`` to logits ``(N, classes)``."""

_BATCH = 128
_STEPS = 16
"""Steps of an epoch at least: few leaked pairs make smaller batches, not an adversary that hardly trains."""
_LEARNING_RATES = (3e-4, 3e-3)


@dataclass(frozen=True)
class _Fit:
    network: nn.Module
    held_loss: float
    """Infinite where it diverged."""


def neural(name: str, make: MakeNetwork) -> Attack:
    """Make an attack out of a network.

    Scaling and learning rate are chosen on held-out leaked pairs after a short training each; the best combination is
    then trained until the held-out loss stops falling, and its best epoch answers. If every combination diverges, the
    groups' frequencies answer, and the report will say that it did not train.
    """

    def attack(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
        pairs, chooser = hold_out(leaked, settings.seed, settings.classes)
        some = pairs[np.arange(min(settings.search_pairs, len(pairs)))]
        scalings = {scaling: fit(pairs) for scaling, fit in SCALINGS.items()}
        with Progress(transient=True) as progress:
            combinations = list(itertools.product(SCALINGS, _LEARNING_RATES))
            work = progress.add_task(name, total=len(combinations) * settings.search_epochs + settings.epochs)

            def fit(scaling: str, rate: float, learned: Payloads, epochs: int) -> _Fit:
                scale = scalings[scaling]
                return _fit(
                    make,
                    scale(learned),
                    scale(chooser),
                    settings,
                    rate,
                    epochs,
                    lambda: progress.advance(work),
                )

            losses = {
                (scaling, rate): fit(scaling, rate, some, settings.search_epochs).held_loss
                for scaling, rate in combinations
            }
            scaling, rate = min(losses, key=lambda combination: losses[combination])
            best = fit(scaling, rate, pairs, settings.epochs)
        if math.isinf(best.held_loss):
            return _prior(pairs, target, settings)
        scale = scalings[scaling]
        return Guess(
            probabilities=forward(best.network, scale(target)).softmax(1).numpy(),
            training_loss=_loss(best.network, scale(pairs)),
            how=f"{scaling}, learning rate {rate:g}",
        )

    return attack


def _fit(
    make: MakeNetwork,
    pairs: Payloads,
    chooser: Payloads,
    settings: AttackSettings,
    rate: float,
    epochs: int,
    advance: Callable[[], None],
) -> _Fit:
    torch.manual_seed(settings.seed)
    network = make((pairs.total_channels, *pairs.features.shape[2:]), settings).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    batch_size = max(2, min(_BATCH, len(pairs) // _STEPS))
    steps = len(pairs) // batch_size
    plan = OptimConfig(epochs=epochs, batch_size=batch_size, learning_rate=rate)
    best, waited = _Fit(network, math.inf), 0
    for epoch in range(epochs):
        network.train()
        shuffled = np.random.default_rng((settings.seed, epoch)).permutation(len(pairs))
        for step in range(steps):
            batch = pairs[shuffled[step * batch_size : (step + 1) * batch_size]]
            for group in optimizer.param_groups:
                group["lr"] = scheduled(plan, epoch * steps + step, steps)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(_mirrored(batch.dense()).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), torch.from_numpy(batch.labels))
            if not torch.isfinite(loss):
                return best
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
        advance()
        held_loss = _loss(network, chooser)
        if held_loss < best.held_loss:  # False for NaN too
            best, waited = _Fit(copy.deepcopy(network), held_loss), 0
        else:
            waited += 1
        if waited >= settings.patience:
            break
    return best


def _prior(pairs: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    frequencies = (np.bincount(pairs.labels, minlength=settings.classes) + 1) / (len(pairs) + settings.classes)
    entropy = -float(np.log(frequencies[pairs.labels]).mean())
    return Guess(np.tile(frequencies.astype(np.float32), (len(target), 1)), entropy, "diverged with every setting")


def _mirrored(values: Tensor) -> Tensor:
    chosen = torch.rand(len(values)) < 0.5
    values[chosen] = values[chosen].flip(-1)
    return values


@torch.no_grad()
def forward(network: nn.Module, payloads: Payloads) -> Tensor:
    """Run a network, in evaluation mode, on every payload: float32 ``(N, ...)``."""
    network.eval()
    parts = []
    for start in range(0, len(payloads), _BATCH):
        batch = payloads[np.arange(start, min(start + _BATCH, len(payloads)))]
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(network(batch.dense().contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(parts)


def _loss(network: nn.Module, payloads: Payloads) -> float:
    return float(F.cross_entropy(forward(network, payloads), torch.from_numpy(payloads.labels)))
