"""Who sees only the mask, or only a number."""

from __future__ import annotations

from tests.training.payloads import SETTINGS, payloads
from training.attacks.side_channels import mask_only, numbers_only
from training.metrics import balanced_accuracy


def test_side_channels_speak_when_there_is_something_to_say() -> None:
    leaked, target = payloads(400, 0, tell=False), payloads(300, 1, tell=False)
    silent = mask_only(leaked, target, SETTINGS)
    assert balanced_accuracy(silent.probabilities.argmax(1), target.labels).low < 1 / 3 + 0.05
    for some in (leaked, target):
        some.channels[:, 1] = 1 + some.labels  # the mask tells the label
        some.channels[:, 2:] = [100, 101]
    told = mask_only(leaked, target, SETTINGS)
    assert balanced_accuracy(told.probabilities.argmax(1), target.labels).low > 0.9
    slow = numbers_only((leaked.labels * 2.0, leaked), (target.labels * 2.0, target), SETTINGS)
    assert balanced_accuracy(slow.probabilities.argmax(1), target.labels).low > 0.9
