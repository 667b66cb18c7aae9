"""What could tell the attribute beside a payload's values: the mask, the latency, the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

from dcp_sdk.bundles.measurements import SideChannel

from ..attacks import AttackSettings
from ..attacks.side_channels import answer_only, mask_only, numbers_only
from ..metrics import balanced_accuracy, information_bits, macro_auc
from ..payloads import device_ms
from .evidence import Evidence
from .utility import answered, patient_client

__all__ = ["measure_side_channels", "relative_latencies"]

_TIMED = 2000
"""Pictures of each split whose device graph is timed."""
_ROUNDS = 3
"""How often each is."""
_NEIGHBOURS = 101
"""Runs whose median is the machine's speed at that time."""


def measure_side_channels(evidence: Evidence, repository: Path, settings: AttackSettings) -> tuple[SideChannel, ...]:
    """Judge the mask, the device graph's latency and what the server answers, each alone.

    The payload's length is a constant of the contract.
    """
    bundle, manifest, splits = evidence.bundle, evidence.manifest, evidence.splits
    leaked, target = evidence.leaked, evidence.target
    sides = [(evidence.leaked_pictures, leaked), (splits.val.pictures, target)]
    shown = [pictures[:_TIMED] for pictures, _ in sides]
    latencies = relative_latencies(partial(device_ms, bundle, manifest), shown)
    timed = [(times, some[np.arange(len(times))]) for times, (_, some) in zip(latencies, sides, strict=True)]
    with patient_client(bundle, repository) as client:
        answers = [answered(client, pictures, splits.task.labels) for pictures, _ in sides]
    # Weighed by the attribute alone: how attribute and answer go together is the very thing that is asked for.
    behind = [replace(some, answers=np.zeros_like(some.answers)) for _, some in sides]
    named = [replace(some, answers=each.argmax(1)) for some, each in zip(behind, answers, strict=True)]
    known, unknown = zip(answers, behind, strict=True)
    guesses = {
        "mask only": (mask_only(leaked, target, settings), target.labels),
        "latency of the device graph": (numbers_only(timed[0], timed[1], settings), timed[1][1].labels),
        "the answer alone": (answer_only(named[0], named[1], settings), target.labels),
        "the answer with its probabilities": (numbers_only(known, unknown, settings), target.labels),
    }
    rankings = {name: macro_auc(guess.probabilities, truth) or (None, None) for name, (guess, truth) in guesses.items()}
    return tuple(
        SideChannel(
            name=name,
            balanced_accuracy=balanced_accuracy(guess.probabilities.argmax(1), truth),
            chance=1 / settings.classes,
            auc=rankings[name][0],
            auc_error=rankings[name][1],
            information_bits=round(information_bits(guess.probabilities, truth), 4),
        )
        for name, (guess, truth) in guesses.items()
    )


def relative_latencies(
    timed: Callable[[npt.NDArray[np.uint8]], list[float]], sides: Sequence[npt.NDArray[np.uint8]]
) -> list[npt.NDArray[np.float64]]:
    """Time pictures as the most patient watcher would: often, all in one random order, against how fast the machine is.

    Args:
        timed: Returns the milliseconds of each picture, in their order.
        sides: Pictures that leaked, and those that are asked about, uint8 ``(N, S, S, 3)``.

    Returns:
        For each side, of each picture the median of a few latencies, each relative to those of its time.
    """
    pictures = np.concatenate(sides)
    rounds = np.empty((_ROUNDS, len(pictures)))
    for number in range(_ROUNDS):
        order = np.random.default_rng(number).permutation(len(pictures))
        times = np.array(timed(pictures[order]))
        rounds[number, order] = times / median_filter(times, _NEIGHBOURS, mode="nearest")
    return np.split(np.median(rounds, axis=0), np.cumsum([len(side) for side in sides])[:-1])
