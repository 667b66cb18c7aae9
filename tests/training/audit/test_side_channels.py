"""What a clock tells, on a machine whose speed drifts, and what an answer tells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.trained import Trained
from tests.training.payloads import SETTINGS
from training import data
from training.audit import Evidence
from training.audit.side_channels import measure_side_channels, relative_latencies
from training.config import Recipe


def test_a_machine_that_drifts_hides_no_latency() -> None:
    """A group that takes 0.3 ms longer stands out, though the machine slows down by more from one side to another."""
    rng = np.random.default_rng(0)
    sides = [rng.integers(0, 2, (count, 1, 1, 3)).astype(np.uint8) for count in (600, 300)]
    clock = 0

    def timed(pictures: npt.NDArray[np.uint8]) -> list[float]:
        nonlocal clock
        times = []
        for picture in pictures:
            clock += 1
            slow = 0.3 * picture[0, 0, 0]
            times.append(10 + slow + 2 * np.sin(clock / 300) + rng.exponential(0.2))
        return times

    known, asked = relative_latencies(timed, sides)
    assert (len(known), len(asked)) == (600, 300)
    middle = np.median(known)
    told = (asked > middle) == sides[1][:, 0, 0, 0]
    assert told.mean() > 0.85, "a threshold that was learnt from one side holds for the other"


def test_the_answer_alone_is_what_the_head_answers(trained: Trained) -> None:
    """A head whose errors follow the attribute: the true label of the task, in contrast, would tell nothing."""
    splits = data.load(Recipe.model_validate(trained.manifest.provenance.settings).data, None)
    evidence = Evidence(trained.bundle, trained.manifest, splits, None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.audit.side_channels.answered", lambda _, pictures, __: tells(pictures, splits))
        told = {each.name: each for each in measure_side_channels(evidence, trained.repository, SETTINGS)}
    honest = {each.name: each for each in measure_side_channels(evidence, trained.repository, SETTINGS)}
    for name in ("the answer alone", "the answer with its probabilities"):
        assert not told[name].silent
        assert told[name].balanced_accuracy.value > honest[name].balanced_accuracy.value + 0.1


def tells(pictures: np.ndarray, splits: data.Splits) -> np.ndarray:
    """Answer class 0 for the first group, whatever the task."""
    side = splits.train if len(pictures) == len(splits.train) else splits.val
    first = side.sensitive[: len(pictures)] == 0
    return np.stack([first, ~first], axis=1).astype(np.float32)
