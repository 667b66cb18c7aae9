"""Averages come from the deployed graph, and undo noise and random channels as far as an average can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dcp_sdk import obfuscate
from tests.benchmarks.held_noise import over_frames
from tests.trained import Trained, train_and_export
from training import data
from training.audit import many_frames
from training.audit.many_frames import averages, histogram
from training.config import Recipe
from training.data import LabelledPictures
from training.payloads import collect


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    neck = ["network.bottleneck.channels=6", "network.bottleneck.noise=0.5", "network.bottleneck.bits=4"]
    folder: Path = tmp_path_factory.mktemp("noisy")
    return train_and_export(folder, "defense.name=latent_pruning", *neck, "pruning.ratio=0.5")


@pytest.fixture(scope="module")
def pictures() -> LabelledPictures:
    return data.load(Recipe.load("generated", ["data.generated_pictures=128"]).data, None).val


def test_a_frame_is_what_the_device_sends(
    noisy: Trained, pictures: LabelledPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (obfuscate, many_frames):
        monkeypatch.setattr(module, "draw_uniform", lambda shape: np.full(shape, 0.3, np.float32))
    (mean,) = averages(noisy.bundle, noisy.manifest, pictures, [3])
    sent = collect(noisy.bundle, noisy.manifest, pictures)
    assert np.array_equal(mean.dense().numpy(), sent.dense().numpy())


def test_more_frames_undo_more_noise(noisy: Trained, pictures: LabelledPictures) -> None:
    few, some, many = averages(noisy.bundle, noisy.manifest, pictures, [1, 10, 400])
    errors = [float((each.dense() - many.dense()).square().mean()) for each in (few, some)]
    assert errors[1] < 0.2 * errors[0]


def test_levels_are_counted_in_the_order_of_a_payload(
    noisy: Trained, pictures: LabelledPictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (obfuscate, many_frames):
        monkeypatch.setattr(module, "draw_uniform", lambda shape: np.full(shape, 0.3, np.float32))
    few, many = (histogram(noisy.bundle, noisy.manifest, pictures.pictures, count) for count in (1, 3))
    steps = collect(noisy.bundle, noisy.manifest, pictures).features.reshape(len(pictures), -1)
    assert few.shape == (len(pictures), 3, 16)
    assert np.array_equal(few.argmax(2), steps)
    assert np.array_equal(many, 3 * few)


def test_a_face_that_moves_shows_more_than_one_that_stands_still(noisy: Trained, pictures: LabelledPictures) -> None:
    (still,), (again,), (moving,) = (
        averages(noisy.bundle, noisy.manifest, pictures, [50], moving=moves) for moves in (False, False, True)
    )
    noise = float((still.dense() - again.dense()).square().mean())
    assert float((still.dense() - moving.dense()).square().mean()) > 2 * noise


def test_noise_that_is_held_varies_with_the_face_alone(noisy: Trained, pictures: LabelledPictures) -> None:
    values = np.prod(noisy.manifest.contract.values_shape, dtype=int)

    def deviations(*, moving: bool, held: bool) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        seen = over_frames(noisy.bundle, noisy.manifest, pictures, 6, moving=moving, held=held)
        return seen.features.reshape(len(pictures), -1)[:, values:].astype(np.float32)

    assert not deviations(moving=False, held=True).any()
    assert deviations(moving=True, held=True).any()
    assert deviations(moving=True, held=True).mean() < deviations(moving=True, held=False).mean()


def test_random_channels_are_all_seen_in_the_end(tmp_path: Path, pictures: LabelledPictures) -> None:
    drawn = train_and_export(tmp_path, "pruning.rule=random", "optim.epochs=1")
    few, many = averages(drawn.bundle, drawn.manifest, pictures, [1, 60])
    kept, channels = drawn.manifest.contract.pruning.kept, drawn.manifest.contract.pruning.channels
    assert few.dense().amax((2, 3)).gt(0).sum(1).max() <= kept
    assert many.dense().amax((2, 3)).gt(0).sum(1).float().mean() > 0.9 * channels
