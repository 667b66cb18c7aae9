"""What the server answers for pictures, through the client that applications have, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dcp_sdk import PrivateClient, Timeouts
from dcp_sdk.bundles.measurements import GroupResult, Interval, Utility

from ..data import Splits
from ..metrics import balanced_accuracy, confusion, mean_interval

__all__ = ["answered", "measure_utility", "patient_client"]

_PATIENCE_S = 600.0
_DRAWS = 5
"""Of the noise for each picture: one alone moves the task by half a point."""


def measure_utility(bundle: Path, repository: Path, splits: Splits) -> Utility:
    """Let :class:`dcp_sdk.PrivateClient` answer for every validation picture, several times where it draws at random.

    Args:
        bundle: Folder of the bundle.
        repository: Model repository with the paired head.
        splits: The data.
    """
    with patient_client(bundle, repository) as client:
        draws = 1 if client.manifest.contract.noise is None else _DRAWS
        answers = [answered(client, splits.val.pictures, splits.task.labels).argmax(1) for _ in range(draws)]

    def share(chosen: npt.NDArray[np.bool_]) -> Interval:
        return mean_interval([balanced_accuracy(each[chosen], splits.val.task[chosen]) for each in answers])

    groups = [
        GroupResult(
            attribute=splits.sensitive.name, label=label, pictures=int(chosen.sum()), balanced_accuracy=share(chosen)
        )
        for number, label in enumerate(splits.sensitive.labels)
        if (chosen := splits.val.sensitive == number).any()
    ]
    return Utility(
        pictures=len(splits.val),
        balanced_accuracy=share(np.ones(len(splits.val), bool)),
        groups=tuple(groups),
        confusion=confusion(answers[0], splits.val.task, splits.task.labels),
        draws=draws,
    )


def patient_client(bundle: Path, repository: Path) -> PrivateClient:
    """Open a client that waits for as long as it takes: an audit runs for hours on a busy machine."""
    patient = Timeouts(connect_s=_PATIENCE_S, predict_s=_PATIENCE_S)
    return PrivateClient(bundle, f"memory://{repository}", timeouts=patient)


def answered(client: PrivateClient, pictures: npt.NDArray[np.uint8], labels: Sequence[str]) -> npt.NDArray[np.float32]:
    """Probabilities of the task's ``labels``, ``(N, classes)``, as the server answers for ``pictures``."""
    predictions = client.predict_batch(pictures)
    return np.array([[prediction.probabilities[label] for label in labels] for prediction in predictions], np.float32)
