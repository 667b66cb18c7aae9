"""One training for every adversary that learns by gradient: search, early stopping, and no silent failure."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor, nn

from ..config import OptimConfig
from ..payloads import Payloads
from ..schedule import learning_rate as scheduled
from .base import Attack, AttackSettings, Guess, Learn, hold_out
from .scaling import SCALINGS, FitScaling

__all__ = ["MakeNetwork", "conv_block", "forward", "learner", "neural"]

MakeNetwork = Callable[[tuple[int, int, int], AttackSettings], nn.Module]
"""``((C, h, w), settings)`` -> network from float32 ``(N, C, h, w)`` to logits ``(N, classes)``."""

_BATCH = 128
_STEPS = 16
"""Steps of an epoch at least: few leaked pairs make smaller batches, not an adversary that hardly trains."""
_LEARNING_RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class _Fit:
    network: nn.Module
    held_share: float
    """Share of held-out pairs, by weight, that are recognised, of the epoch where it was highest; -1 if it diverged
    before."""
    held_loss: float
    """Cross-entropy on held-out pairs, by weight, of the epoch where it was lowest; infinite if it diverged before."""


def neural(name: str, make: MakeNetwork) -> Attack:
    """Make an attack out of a network: it learns, and answers once. See :func:`learner`."""
    learn = learner(name, make)

    def attack(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
        return learn(leaked, settings)(target)

    return attack


def learner(name: str, make: MakeNetwork, scalings: Mapping[str, FitScaling] = SCALINGS) -> Learn:
    """Let a network learn from leaked pairs.

    Scaling and learning rate are chosen by the loss on held-out leaked pairs after a short training each. The best
    combination is then trained to the end of its schedule, or until held-out pairs stop being recognised better, and
    its best epoch answers. Not until their *loss* stops falling: it rises long before, and stopping there costs the
    attacker points. If every combination diverges, it guesses, and the report will say that it did not train. Pairs
    count by :meth:`~training.payloads.Payloads.weights` throughout.
    """

    def learn(leaked: Payloads, settings: AttackSettings) -> Callable[[Payloads], Guess]:
        pairs, chooser = hold_out(leaked, settings.seed, settings.classes)
        some = pairs[np.arange(min(settings.search_pairs, len(pairs)))]
        fitted = {name: fit(pairs) for name, fit in scalings.items()}
        losses: dict[tuple[str, float], float] = {}
        with Progress(transient=True) as progress:
            total = len(fitted) * len(_LEARNING_RATES) * settings.search_epochs + settings.epochs
            advance = partial(progress.advance, progress.add_task(name, total=total))
            for scaling, scale in fitted.items():
                learned, judge = scale(some), scale(chooser)
                for rate in _LEARNING_RATES:
                    fit = _fit(make, learned, judge, settings, rate, settings.search_epochs, advance)
                    losses[scaling, rate] = fit.held_loss
            scaling, rate = min(losses, key=lambda combination: losses[combination])
            scale = fitted[scaling]
            learned, judge = scale(pairs), scale(chooser)
            best = _fit(make, learned, judge, settings, rate, settings.epochs, advance)
        if best.held_share < 0:
            return partial(_guessing, settings=settings)
        loss, held_out = _loss(best.network, learned), _loss(best.network, judge)

        def answer(target: Payloads) -> Guess:
            return Guess(
                probabilities=forward(best.network, scale(target)).softmax(1).numpy(),
                training_loss=loss,
                held_out_loss=held_out,
                how=f"{scaling}, learning rate {rate:g}",
            )

        return answer

    return learn


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
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2, fused=True)
    batch_size = max(2, min(_BATCH, len(pairs) // _STEPS))
    steps = len(pairs) // batch_size
    plan = OptimConfig(epochs=epochs, batch_size=batch_size, learning_rate=rate)
    best, waited, least = _Fit(network, -1.0, math.inf), 0, math.inf
    weights, judged = torch.from_numpy(pairs.weights()), torch.from_numpy(chooser.weights())
    truth = torch.from_numpy(chooser.labels)
    for epoch in range(epochs):
        network.train()
        shuffled = np.random.default_rng((settings.seed, epoch)).permutation(len(pairs))
        for step in range(steps):
            chosen = shuffled[step * batch_size : (step + 1) * batch_size]
            batch = pairs[chosen]
            for group in optimizer.param_groups:
                group["lr"] = scheduled(plan, epoch * steps + step, steps)
            with torch.autocast("cpu", torch.bfloat16):
                values = _mirrored(batch.dense()) if settings.mirror else batch.dense()
                logits = network(values.contiguous(memory_format=torch.channels_last))
            loss = weighted_loss(logits.float(), batch, weights[chosen])
            if not torch.isfinite(loss):
                return best
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
        advance()
        logits = forward(network, chooser)
        share = float(((logits.argmax(1) == truth) * judged).mean())
        if not bool(torch.isfinite(logits).all()):
            return best
        least = min(least, float(weighted_loss(logits, chooser, judged)))
        if share >= best.held_share:
            best, waited = _Fit(copy.deepcopy(network), share, least), 0
        else:
            waited += 1
        if waited >= settings.patience:
            break
    return replace(best, held_loss=least)


def _guessing(target: Payloads, settings: AttackSettings) -> Guess:
    return Guess(
        probabilities=np.full((len(target), settings.classes), 1 / settings.classes, np.float32),
        training_loss=math.log(settings.classes),
        how="diverged with every setting",
    )


def conv_block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Convolution, batch normalisation, ReLU; the side stays."""
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _mirrored(values: Tensor) -> Tensor:
    chosen = torch.rand(len(values)) < 0.5
    values[chosen] = values[chosen].flip(-1)
    return values


@torch.no_grad()
def forward(network: nn.Module, payloads: Payloads) -> Tensor:
    """Run a network, in evaluation mode, on every payload: float32 ``(N, ...)``."""
    network.eval()
    parts = []
    for batch in payloads.batches(_BATCH):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(network(batch.dense().contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(parts)


def _loss(network: nn.Module, payloads: Payloads) -> float:
    return float(weighted_loss(forward(network, payloads), payloads, torch.from_numpy(payloads.weights())))


def weighted_loss(logits: Tensor, payloads: Payloads, weights: Tensor) -> Tensor:
    """Cross-entropy in nats, each pair by its weight."""
    return (F.cross_entropy(logits, torch.from_numpy(payloads.labels), reduction="none") * weights).mean()
