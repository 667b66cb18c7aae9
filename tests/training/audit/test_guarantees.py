"""Guarantees against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from training.audit.guarantees import (
    attribute_information,
    best_accuracy,
    gaussian_epsilon,
    log_likelihoods,
    reconstruction_bound,
)


@given(st.floats(0.05, 20), st.floats(1e-9, 0.1))
def test_epsilon_is_the_smallest_that_holds(ratio: float, delta: float) -> None:
    """Against the definition: the largest mass by which two Gaussians at that distance differ."""
    epsilon = gaussian_epsilon(ratio, 1.0, delta)

    def largest_excess(epsilon: float) -> float:
        edge = epsilon / ratio - ratio / 2  # where the densities' ratio is e^epsilon
        return float(norm.sf(edge) - math.exp(epsilon) * norm.sf(edge + ratio))

    assert largest_excess(epsilon) <= delta * (1 + 1e-3) + 1e-12
    if epsilon > 1e-3:
        assert largest_excess(epsilon * 0.99) > delta * (1 - 1e-3)


def test_more_noise_gives_a_smaller_epsilon() -> None:
    epsilons = [gaussian_epsilon(2.0, deviation, 1e-5) for deviation in (0.125, 0.5, 2.0, 8.0)]
    assert epsilons == sorted(epsilons, reverse=True)
    assert gaussian_epsilon(1.0, 1e6, 1e-2) == 0


@pytest.mark.parametrize("levels", [2, 4, 16, 256])
def test_likelihoods_are_a_distribution_over_the_wire(levels: int) -> None:
    values = np.array([[0.0], [0.31], [1.0]])
    likelihoods = log_likelihoods(np.arange(levels)[:, None], values, 0.1, levels)
    assert np.allclose(np.exp(likelihoods).sum(0), 1)


def test_likelihoods_are_those_of_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(0.2 + 0.15 * rng.normal(size=200_000), 0, 1)
    counts = np.bincount(np.round(noisy * 3).astype(int), minlength=4) / 200_000
    likelihoods = log_likelihoods(np.arange(4)[:, None], np.array([[0.2]]), 0.15, 4)
    assert np.allclose(np.exp(likelihoods[:, 0]), counts, atol=0.005)


def _population(apart: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    groups = np.arange(3000) % 2
    return np.clip(0.5 + apart * (groups[:, None] - 0.5) + 0.02 * rng.normal(size=(3000, 2)), 0, 1), groups


def _draw(values: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(2).normal(size=values.shape)
    return np.round(np.clip(values + deviation * noise, 0, 1) * 255).astype(int)


def test_the_best_attacker_reads_what_the_noise_leaves() -> None:
    values, groups = _population(apart=0.2)
    likelihoods = log_likelihoods(_draw(values, 0.1), values, 0.1, 256)
    expected = norm.cdf(0.2 * math.sqrt(2) / 2 / math.hypot(0.1, 0.02))
    assert best_accuracy(likelihoods, groups, groups, 2) == pytest.approx(expected, abs=0.015)
    bits, error = attribute_information(likelihoods, groups, groups, 2)
    assert error < 0.03
    assert 1 - _entropy(expected) <= bits + 3 * error, "at least what its own answers tell"
    assert bits < 1


def test_where_groups_are_alike_there_is_next_to_nothing_to_read() -> None:
    values, groups = _population(apart=0.0)
    likelihoods = log_likelihoods(_draw(values, 0.1), values, 0.1, 256)
    assert best_accuracy(likelihoods, groups, groups, 2) == pytest.approx(0.5, abs=0.03)
    bits, error = attribute_information(likelihoods, groups, groups, 2)
    assert bits < 0.01 + 3 * error


def _entropy(share: float) -> float:
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def test_no_linear_attacker_beats_the_reconstruction_bound_and_the_best_one_reaches_it() -> None:
    """Gaussian pictures and a linear encoder: the least error is known, and it is what the bound says."""
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(40, 40)) * np.linspace(1, 0.05, 40)
    pictures = (rng.normal(size=(20_000, 40)) @ mixing.T).astype(np.float32)
    encoder = rng.normal(size=(6, 40)).astype(np.float32)
    bound = reconstruction_bound(encoder, pictures)
    codes = pictures @ encoder.T
    decoder, *_ = np.linalg.lstsq(codes, pictures, rcond=None)
    assert np.square(codes @ decoder - pictures).mean() == pytest.approx(bound, rel=0.01)
    assert 0 < bound < pictures.var()


def test_an_encoder_that_sees_everything_guarantees_nothing() -> None:
    rng = np.random.default_rng(4)
    pictures = rng.normal(size=(500, 10)).astype(np.float32)
    assert reconstruction_bound(np.eye(10, dtype=np.float32), pictures) == pytest.approx(0, abs=1e-9)
    halves = np.eye(10, dtype=np.float32)[:5]
    assert reconstruction_bound(halves, pictures) == pytest.approx(pictures[:, 5:].var(0).sum() / 10, rel=0.05)
