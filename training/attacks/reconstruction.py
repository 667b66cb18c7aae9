"""What an attacker has who wants the picture behind a payload, and how hard they try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dcp_sdk.contract import Contract

from ..payloads import Payloads
from .base import AttackSettings

__all__ = ["Knowledge", "Pictures", "Reconstruct", "SearchSettings", "as_pictures", "as_tensor"]

Pictures = npt.NDArray[np.uint8]
"""uint8 ``(N, S, S, 3)``, RGB."""


@dataclass(frozen=True)
class SearchSettings:
    """For attacks that search for one picture at a time instead of learning from pairs."""

    targets: int
    """Pictures that are drawn: each takes a search of its own."""
    steps: int
    """Of the search for pixels."""
    restarts: int
    """Starting points for each picture; the one whose payload fits best is kept."""
    prior_steps: int
    """Of the search for the weights of a deep image prior."""


@dataclass(frozen=True)
class Knowledge:
    """Everything that a dishonest server can know: the bundle with graph and weights, and leaked pairs."""

    bundle: Path
    contract: Contract
    leaked: Payloads
    pictures: Pictures
    """What ``leaked`` came from."""
    settings: AttackSettings
    search: SearchSettings


Reconstruct = Callable[[Knowledge, Payloads], Pictures]
"""``(knowledge, target)``: draw the pictures behind M payloads never seen, uint8 ``(M, S, S, 3)``."""


def as_tensor(pictures: Pictures) -> Tensor:
    """Uint8 ``(N, S, S, 3)`` -> float32 ``(N, 3, S, S)``, 0..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def as_pictures(drawn: Tensor) -> Pictures:
    """Float ``(N, 3, S, S)``, 0..1 -> uint8 ``(N, S, S, 3)``."""
    rounded = (drawn.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).contiguous().numpy()
