"""Payloads made without a network: they tell something, or nothing, and who reads them takes seconds."""

from __future__ import annotations

import numpy as np

from training.attacks import AttackSettings, SearchSettings
from training.config import NetworkConfig
from training.payloads import Payloads

LABELS = ("a", "b", "c")
SETTINGS = AttackSettings(
    network=NetworkConfig(split=6),
    classes=3,
    seed=0,
    epochs=8,
    decoder_epochs=12,
    patience=3,
    search_epochs=1,
    search_pairs=200,
    mirror=False,
    trees=20,
)
BRIEF = SearchSettings(targets=2, steps=10, restarts=2, prior_steps=10)


def payloads(count: int, seed: int, *, tell: bool) -> Payloads:
    """Payloads of 4 out of 128 channels; with ``tell`` one of them is brighter according to the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    channels = np.sort(rng.permuted(np.tile(np.arange(128), (count, 1)), axis=1)[:, :4], axis=1).astype(np.uint8)
    channels[:, 0] = 0
    features = rng.integers(0, 60, (count, 4, 4, 4)).astype(np.uint8)
    if tell:
        features[:, 0] += (90 * labels)[:, None, None].astype(np.uint8)
    return Payloads(channels, features, labels, np.zeros_like(labels), 128, 0.01)
