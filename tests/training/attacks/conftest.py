"""An unpruned, shallow bundle, and what an attacker knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dcp_sdk import load_image
from dcp_sdk.preprocess import preprocess
from tests.tiny import ROOT
from tests.trained import Trained, train_and_export
from tests.training.payloads import SETTINGS
from training.attacks import Knowledge, SearchSettings
from training.attacks.reconstruction import Pictures
from training.config import NetworkConfig
from training.generated import draw_pictures
from training.payloads import Payloads
from training.reports.panels import panel_payloads

Send = Callable[[Pictures], Payloads]


@pytest.fixture(scope="session")
def unpruned(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train and export a network that is cut early and prunes nothing: the picture is all there."""
    overrides = ("network.split=3", "pruning.rule=none", "pruning.ratio=0", "optim.epochs=1")
    return train_and_export(tmp_path_factory.mktemp("unpruned"), *overrides)


@pytest.fixture(scope="session")
def faces(unpruned: Trained) -> Pictures:
    """Show a face, and the same upside down."""
    portrait = load_image(ROOT / "examples" / "data" / "astronaut.jpg")
    face = preprocess(portrait, unpruned.manifest.contract.preprocessing)
    return np.stack([face, face[::-1]])


@pytest.fixture(scope="session")
def send(unpruned: Trained) -> Send:
    """Send pictures through the unpruned bundle."""
    return lambda pictures: panel_payloads(unpruned.bundle, unpruned.manifest, pictures)


@pytest.fixture(scope="session")
def knowledge(unpruned: Trained, faces: Pictures, send: Send) -> Knowledge:
    """Give graph and weights, and a few leaked pairs."""
    seen, _, _ = draw_pictures(4, faces.shape[1], seed=7)
    return Knowledge(
        bundle=Path(unpruned.bundle),
        contract=unpruned.manifest.contract,
        leaked=send(seen),
        pictures=seen,
        settings=replace(
            SETTINGS,
            network=NetworkConfig(split=3),
            epochs=1,
            decoder_epochs=1,
            patience=1,
            search_pairs=1,
            trees=1,
        ),
        search=SearchSettings(targets=2, steps=120, restarts=2, prior_steps=120),
    )
