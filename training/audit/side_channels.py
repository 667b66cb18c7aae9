"""What could tell the attribute beside a payload's values: the mask, the latency, the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dcp_sdk.bundles.measurements import SideChannel

from ..attacks import AttackSettings
from ..attacks.side_channels import answer_only, mask_only, numbers_only
from ..metrics import balanced_accuracy, information_bits, macro_auc
from ..payloads import device_ms
from .evidence import Evidence
from .utility import answered, patient_client

__all__ = ["measure_side_channels"]

_TIMED = 2000
"""Pictures of each split whose device graph is timed."""


def measure_side_channels(evidence: Evidence, repository: Path, settings: AttackSettings) -> tuple[SideChannel, ...]:
    """Judge the mask, the device graph's latency and what the server answers, each alone.

    The payload's length is a constant of the contract.
    """
    bundle, manifest, splits = evidence.bundle, evidence.manifest, evidence.splits
    leaked, target = evidence.leaked, evidence.target
    sides = [(evidence.leaked_pictures, leaked), (splits.val.pictures, target)]
    timed = [
        (device_ms(bundle, manifest, pictures[:_TIMED]), some[np.arange(min(_TIMED, len(some)))])
        for pictures, some in sides
    ]
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
