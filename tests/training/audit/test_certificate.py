"""Certificates of bundles that were really exported."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.errors import ConfigError
from tests.tiny import PAPER
from tests.trained import Trained, train_and_export
from training import data
from training.attacks.device_twin import DeviceTwin
from training.audit.certificate import certify, smooth
from training.audit.guarantees import rate_distortion_bound
from training.audit.many_frames import require_noise
from training.audit.measure import measure_attack
from training.config import BottleneckConfig, Recipe
from training.data import Splits
from training.evaluate import attack_settings
from training.payloads import collect

NECK = [f"network.bottleneck.{what}" for what in ("channels=3", "noise=0.5", "bits=4", "reach=1")]
PLAIN = ["pruning.rule=none", "pruning.ratio=0"]


def neck_of(pair: Trained) -> BottleneckConfig:
    neck = Recipe.model_validate(pair.manifest.provenance.settings).network.bottleneck
    assert neck is not None
    return neck


def certified(pair: Trained, splits: Splits) -> tuple[BottleneckConfig, object]:
    neck = neck_of(pair)
    return neck, certify(pair.bundle, pair.manifest, neck, splits)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(Recipe.load("generated", ["data.generated_pictures=1500"]).data, None)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_and_export(tmp_path_factory.mktemp("noisy"), "defense.name=latent_pruning", *NECK, *PLAIN)


def test_a_noisy_bundle_is_certified(noisy: Trained, splits: Splits) -> None:
    neck, certificate = certified(noisy, splits)
    assert certificate.capacity_bits == 3 * 4
    assert certificate.epsilons[1] < certificate.epsilons[10] < certificate.epsilons[100]
    deviation = neck.noise / (2 * neck.reach)
    assert certificate.epsilons[1] > 3 / deviation**2 / 2, "more values than noise: a weak guarantee, and it says so"
    assert 1 / 3 < certificate.best_accuracy <= 1
    assert 1 / 3 - 0.02 < certificate.shuffled_accuracy < certificate.most_shuffled_accuracy < 0.45
    assert abs(certificate.shuffled_bits) < 0.05
    assert -2 * certificate.information_error <= certificate.information_bits <= math.log2(3)
    leaked, target = (collect(noisy.bundle, noisy.manifest, split) for split in (splits.train, splits.val))
    recipe = Recipe.model_validate(noisy.manifest.provenance.settings)
    settings = attack_settings(recipe, 3, 0, quick=True)
    read = measure_attack("gradient boosting", leaked, target, settings, splits.sensitive.labels).balanced_accuracy
    assert certificate.best_accuracy > read.low, "somebody beats the best possible attacker"
    pixels = splits.train.pictures / 255
    assert 1 <= certificate.reconstruction_pictures <= len(splits.val)
    assert 0 < certificate.reconstruction_mse < pixels.var(0).mean() * 1.02


def by_bits(splits: Splits, bits: int) -> float:
    """All that bounds an encoder whose noise does not cover what it tells."""
    some = splits.train.pictures[:1024] / np.float32(255)
    return rate_distortion_bound(some.reshape(len(some), -1), bits)


def test_a_mask_that_follows_the_picture_is_not_covered_by_noise(tmp_path: Path, splits: Splits) -> None:
    pair = train_and_export(tmp_path, "defense.name=latent_pruning", *NECK, "pruning.ratio=0.34")
    _, certificate = certified(pair, splits)
    assert certificate.capacity_bits == 2 * 4 + 2
    assert certificate.epsilons == {}
    assert certificate.best_accuracy is None
    assert certificate.reconstruction_mse == pytest.approx(by_bits(splits, certificate.capacity_bits))
    assert certificate.reconstruction_pictures is None


def test_noise_that_is_not_what_the_manifest_says_is_refused(noisy: Trained) -> None:
    """Whoever writes a larger number into the manifest would have a smaller epsilon printed."""
    neck = neck_of(noisy)
    require_noise(noisy.bundle, noisy.manifest.contract, neck.deviation)
    for claimed in (0.8 * neck.deviation, 3 * neck.deviation):
        with pytest.raises(ConfigError, match="got other noise"):
            require_noise(noisy.bundle, noisy.manifest.contract, claimed)


def test_no_epsilon_is_stated_where_noise_does_not_reach_across(noisy: Trained, splits: Splits) -> None:
    """The device's numbers have 24 bits: what lies beyond 5.8 deviations never leaves, and gives pictures away."""
    neck = neck_of(noisy)
    little = neck.model_copy(update={"noise": 0.3})
    assert little.deviation * 5.8 < 1 < neck.deviation * 5.7
    certificate = certify(noisy.bundle, noisy.manifest, little, splits)
    assert (certificate.epsilons, certificate.delta) == ({}, None)
    assert certificate.best_accuracy is not None


def test_the_smooth_stand_in_is_another_network(splits: Splits) -> None:
    twin = DeviceTwin(PAPER, Manifest.load(PAPER).contract)
    pictures = torch.rand(2, 3, 112, 112)
    before, _ = twin(pictures)
    after, _ = smooth(twin)(pictures)
    assert torch.equal(twin(pictures)[0], before)
    assert 0 < (after - before).abs().mean() < 0.2 * before.abs().mean()


def test_without_a_neck_only_the_capacity_is_known(splits: Splits) -> None:
    manifest = Manifest.load(PAPER)
    certificate = certify(PAPER, manifest, None, splits)
    assert certificate.capacity_bits == 8 * 13 * 14 * 14 + math.ceil(math.log2(math.comb(128, 13)))
    assert certificate.reconstruction_mse is None, "of 20,000 bits and more next to nothing follows"
