"""The learning rate of every training here, attacks included."""

from __future__ import annotations

import math

from .config import OptimConfig

__all__ = ["learning_rate"]


def learning_rate(optim: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step, a pure function: resuming needs no scheduler state."""
    if optim.schedule == "constant":
        return optim.learning_rate
    total = optim.epochs * steps_per_epoch
    warmup = max(1, round(optim.warmup * total))
    if step < warmup:
        return optim.learning_rate * (step + 1) / warmup
    return optim.learning_rate * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))) / 2
