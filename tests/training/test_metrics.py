"""Shares, intervals and likeness, where the right value is known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchvision.models import AlexNet_Weights, alexnet

from training.generated import draw_pictures
from training.metrics import (
    balanced_accuracy,
    information_bits,
    macro_auc,
    mean_interval,
    perceptual_distance,
    ranked_classes,
    similarity,
)


def test_balanced_accuracy_of_a_constant_answer_is_chance() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(np.zeros(100, np.int64), truth).value == 0.5
    assert balanced_accuracy(truth, truth).value == 1


def test_balanced_accuracy_is_the_mean_recall_and_its_interval_covers() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1], [900, 100])
    covered = 0
    for _ in range(400):
        right = generator.random(1000) < np.where(truth == 0, 0.9, 0.6)
        interval = balanced_accuracy(np.where(right, truth, 1 - truth), truth)
        covered += interval.low <= 0.75 <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


def test_draws_of_the_noise_are_averaged_and_the_interval_stays_that_of_the_pictures() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    each = [balanced_accuracy(np.where(rng.random(400) < 0.9, truth, 1 - truth), truth) for _ in range(50)]
    mean = mean_interval(each)
    assert mean.value == pytest.approx(0.9, abs=0.01)
    assert mean.high - mean.low == pytest.approx(each[0].high - each[0].low, rel=0.2)
    assert mean_interval(each[:1]) == each[0]


def test_answers_prove_the_bits_that_they_hold() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 40_000)
    told = rng.random(len(truth)) < 0.5  # else erased: half of two bits is left
    knows = np.where(told[:, None], np.eye(4)[truth], 0.25).astype(np.float32)
    assert information_bits(knows, truth) == pytest.approx(1.0, abs=0.02)
    assert information_bits(np.full((len(truth), 4), 0.25, np.float32), truth) == pytest.approx(0, abs=1e-3)
    assert information_bits(np.roll(knows, 1, axis=1), truth) == 0, "wrong answers prove nothing"


def test_the_area_is_the_usual_one_and_its_error_covers() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    errors, areas = [], []
    for _ in range(300):
        scores = (rng.normal(size=(600, 3)) + 0.5 * np.eye(3)[truth]).round(1).astype(np.float32)  # with ties
        found = macro_auc(scores, truth)
        assert found is not None
        assert found[0] == pytest.approx(np.mean([roc_auc_score(truth == each, scores[:, each]) for each in range(3)]))
        areas.append(found[0])
        errors.append(found[1])
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.15)
    assert macro_auc(scores, np.zeros_like(truth)) is None
    rare = np.where(np.arange(600) < 19, 1, np.where(truth == 1, 0, truth))
    assert ranked_classes(rare).tolist() == [0, 2]


def test_the_error_covers_where_a_class_has_few_pictures() -> None:
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(400) < 20, 1, 0)
    covered = 0
    for _ in range(400):
        found = macro_auc(rng.random((400, 2)).astype(np.float32), truth)
        assert found is not None
        covered += abs(found[0] - 0.5) <= 1.96 * found[1]
    assert 0.91 <= covered / 400 <= 0.99


def test_likeness_falls_with_noise() -> None:
    pictures = draw_pictures(8, size_px=64, seed=0)[0]
    noise = np.random.default_rng(0).normal(0, 1, pictures.shape)
    alike = [similarity(np.clip(pictures + sigma * noise, 0, 255).astype(np.uint8), pictures) for sigma in (0, 10, 60)]
    assert alike[0][0] == pytest.approx(1, abs=1e-4)
    assert alike[0] > alike[1] > alike[2]


def test_perceptual_distance_needs_weights_and_never_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights stand in for ImageNet's: that a picture is at distance 0 from itself does not depend on them."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    pictures = draw_pictures(4, size_px=64, seed=0)[0]
    assert perceptual_distance(pictures, pictures) is None
    (tmp_path / "checkpoints").mkdir()
    with torch.device("meta"):
        network = alexnet()
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for values in network.features.parameters():
        values.data.uniform_(-0.05, 0.05, generator=generator)
    torch.save(network.state_dict(), tmp_path / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name)
    assert perceptual_distance(pictures, pictures) == pytest.approx(0, abs=1e-6)
    other = perceptual_distance(pictures[::-1].copy(), pictures)
    assert other is not None
    assert other > 1e-6
