"""Optimisation-based reconstruction: search for pixels whose payload, through the deployed graph, is the one seen.

``min_x L(g(x), payload) + w TV(x)``: Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them",
CVPR 2015; as an attack on split inference He, Zhang & Lee, "Model Inversion Attacks Against Collaborative Inference",
ACSAC 2019 (white box). OURS: w is chosen on a few leaked pairs; the fewer channels are sent, the more it must fill in.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from ..metrics import similarity
from ..payloads import Payloads
from .device_twin import DeviceTwin
from .matching import PayloadMatch, total_variation
from .reconstruction import Knowledge, Pictures, as_pictures

__all__ = ["best_of", "inversion"]

_BATCH = 24
_LEARNING_RATE = 0.5
_TV_WEIGHTS = (1.0, 4.0, 16.0)
_TRIED = 4
"""Leaked pairs on which each weight is tried."""
_NOISE = 0.02
"""Deviation of the starting points around grey, before the sigmoid."""


def inversion(knowledge: Knowledge, target: Payloads) -> Pictures:
    """Search for the pictures behind ``target``, from several starting points at once.

    Pixels are the sigmoid of what is optimised, so that they stay within 0..1. For each picture the starting point
    that came to the lowest value of the attacker's own objective is kept: there is nothing else to choose by.

    Args:
        knowledge: ``search.steps``, ``search.restarts`` and ``settings.seed`` are used, and a few of the leaked pairs.
        target: M payloads never seen.

    Returns:
        uint8 ``(M, S, S, 3)``.
    """
    twin = DeviceTwin(knowledge.bundle, knowledge.contract, through_limits=True)
    restarts = knowledge.search.restarts
    weight = _choose_weight(knowledge, twin)
    batches = target.batches(max(1, _BATCH // restarts))
    return np.concatenate([_search(knowledge, twin, batch, weight, restarts) for batch in batches])


def _choose_weight(knowledge: Knowledge, twin: DeviceTwin) -> float:
    """Find which weight of the total variation draws the leaked pictures best, by SSIM."""
    some = np.arange(min(_TRIED, len(knowledge.leaked)))
    payloads, pictures = knowledge.leaked[some], knowledge.pictures[some]

    def likeness(weight: float) -> float:
        return similarity(_search(knowledge, twin, payloads, weight, 1), pictures)[0]

    return max(_TV_WEIGHTS, key=likeness)


def _search(knowledge: Knowledge, twin: DeviceTwin, target: Payloads, tv_weight: float, restarts: int) -> Pictures:
    steps, size_px = knowledge.search.steps, knowledge.contract.preprocessing.size_px
    match = PayloadMatch(twin, knowledge.contract, target)
    which = torch.arange(len(target)).repeat_interleave(restarts)
    generator = torch.Generator().manual_seed(knowledge.settings.seed)
    hidden = (_NOISE * torch.randn(len(which), 3, size_px, size_px, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([hidden], lr=_LEARNING_RATE)
    best = torch.full((len(which),), math.inf)
    pictures = torch.zeros_like(hidden)
    for step in track(range(steps), "inversion", transient=True):
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        drawn = hidden.sigmoid()
        objective = match(drawn, which) + tv_weight * total_variation(drawn)
        with torch.no_grad():
            better = objective < best
            best = torch.where(better, objective, best)
            pictures[better] = drawn[better]
        optimizer.zero_grad()
        objective.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return as_pictures(best_of(best, pictures, restarts))


def best_of(objectives: Tensor, pictures: Tensor, restarts: int) -> Tensor:
    """Keep, of each ``restarts`` pictures in a row, the one with the lowest objective.

    Args:
        objectives: ``(M restarts,)``.
        pictures: ``(M restarts, 3, S, S)``.
        restarts: At least 1.

    Returns:
        ``(M, 3, S, S)``.
    """
    rows = objectives.view(-1, restarts).argmin(1) + restarts * torch.arange(len(objectives) // restarts)
    return pictures[rows]
