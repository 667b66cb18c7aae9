"""Guarantees against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from training.attacks.likelihood import (
    likelihood,
    likelihood_of_frames,
    log_likelihoods,
    log_likelihoods_of_frames,
)
from training.audit.guarantees import (
    best_attacker,
    effective_pictures,
    gaussian_epsilon,
    rate_distortion_bound,
    reconstruction_bound,
)
from training.payloads import Payloads


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


def test_far_above_a_value_is_as_unlikely_as_far_below() -> None:
    levels = np.arange(256)[:, None]
    below, above = (log_likelihoods(levels, np.array([[value]]), 0.05, 256)[:, 0] for value in (0.1, 0.9))
    assert np.allclose(below, above[::-1])
    assert below[-1] < -100


def test_likelihoods_are_those_of_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(0.2 + 0.15 * rng.normal(size=200_000), 0, 1)
    counts = np.bincount(np.round(noisy * 3).astype(int), minlength=4) / 200_000
    likelihoods = log_likelihoods(np.arange(4)[:, None], np.array([[0.2]]), 0.15, 4)
    assert np.allclose(np.exp(likelihoods[:, 0]), counts, atol=0.005)


def test_many_frames_are_worth_what_each_of_them_is() -> None:
    rng = np.random.default_rng(0)
    values, frames = rng.random((7, 2)), rng.integers(0, 16, (5, 3, 2))  # five frames of three pictures
    seen = np.stack([(frames == level).sum(0) for level in range(16)], axis=-1)
    together = sum(log_likelihoods(each, values, 0.1, 16) for each in frames)
    assert np.allclose(log_likelihoods_of_frames(seen, values, 0.1), together)


def test_more_frames_tell_more_and_no_more_than_there_is() -> None:
    values, groups = _population(apart=0.06)
    known, others = np.arange(1500), np.arange(1500, 3000)
    pairs = _payloads(_draw(values, 0.1), groups)[known]
    noise, read = np.random.default_rng(3), []
    for frames in (1, 30):
        seen = np.zeros((1500, 2, 16), int)
        for _ in range(frames):
            steps = np.round(np.clip(values[others] + 0.1 * noise.normal(size=(1500, 2)), 0, 1) * 15).astype(int)
            np.add.at(seen, (np.arange(1500)[:, None], np.arange(2)[None], steps), 1)
        guess = likelihood_of_frames(pairs, values[known], seen, 0.1, 2)
        read.append((guess.probabilities.argmax(1) == groups[others]).mean())
    possible = [norm.cdf(0.06 * math.sqrt(2) / 2 / math.hypot(0.1 / math.sqrt(frames), 0.02)) for frames in (1, 30)]
    assert read == pytest.approx(possible, abs=0.03)
    assert read[1] > read[0] + 0.15


def _population(apart: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    groups = np.arange(3000) % 2
    return np.clip(0.5 + apart * (groups[:, None] - 0.5) + 0.02 * rng.normal(size=(3000, 2)), 0, 1), groups


def _draw(values: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(2).normal(size=values.shape)
    return np.round(np.clip(values + deviation * noise, 0, 1) * 255).astype(int)


def test_the_best_attacker_reads_what_the_noise_leaves() -> None:
    values, groups = _population(apart=0.2)
    best = best_attacker(values, groups, 2, 0.1, 256, draws=4)
    expected = norm.cdf(0.2 * math.sqrt(2) / 2 / math.hypot(0.1, 0.02))
    assert best.accuracy == pytest.approx(expected, abs=0.01)
    assert 1 - _entropy(expected) <= best.information_bits + 3 * best.information_error, (
        "at least what its answers tell"
    )
    assert best.information_bits < 1
    assert best.shuffled_accuracy == pytest.approx(0.5, abs=0.03), "3,000 pictures that overlap are not known by heart"
    assert abs(best.shuffled_bits) < 0.02
    assert best.shuffled_accuracy < best.most_shuffled_accuracy < 0.55
    assert best.shuffled_bits < best.most_shuffled_bits < best.information_bits


def test_where_groups_are_alike_there_is_next_to_nothing_to_read() -> None:
    values, groups = _population(apart=0.0)
    best = best_attacker(values, groups, 2, 0.1, 256, draws=4)
    assert best.accuracy == pytest.approx(0.5, abs=0.03)
    assert best.information_bits < best.most_shuffled_bits + 0.01, "no more than any order of the labels tells"
    assert 0 <= best.information_bits + 2 * best.information_error < 0.02


def test_what_is_known_by_heart_alone_is_told_apart() -> None:
    """Pictures that the noise hardly hides are recognised, whatever their labels: nothing follows for others."""
    values = np.random.default_rng(0).random((60, 3))
    best = best_attacker(values, np.arange(60) % 2, 2, 0.01, 256, draws=4)
    assert best.shuffled_accuracy == pytest.approx(best.accuracy, abs=0.05)
    assert best.accuracy > 0.95
    assert best.shuffled_bits == pytest.approx(best.information_bits, abs=0.1)


def test_nobody_beats_the_best_attacker_on_its_population_however_the_rest_of_the_world_looks() -> None:
    """What one threshold reads is less; who learnt from pictures of the opposite kind reads almost nothing."""
    groups = np.repeat([0, 1], 200)
    values = np.where(groups == 0, 0.4, 0.6)[:, None].astype(float)
    best = best_attacker(values, groups, 2, 0.1, 256)
    steps = _draw(values, 0.1)
    assert best.accuracy >= ((steps[:, 0] > 127) == groups).mean() - 0.03
    assert best.accuracy == pytest.approx(norm.cdf(1), abs=0.01)
    assert best.information_bits > 0
    misled = likelihood(_payloads(steps, groups), 1 - values, _payloads(steps, groups), 0.1, 256, 2)
    assert (misled.probabilities.argmax(1) == groups).mean() < 0.25


def test_the_attacker_who_knows_the_noise_reads_as_much_of_other_pictures_as_there_is() -> None:
    values, groups = _population(apart=0.2)
    seen, others = np.arange(0, 1500), np.arange(1500, 3000)
    steps = _draw(values, 0.1)
    pairs = _payloads(steps, groups)
    guess = likelihood(pairs[seen], values[seen], pairs[others], 0.1, 256, 2)
    expected = norm.cdf(0.2 * math.sqrt(2) / 2 / math.hypot(0.1, 0.02))
    assert (guess.probabilities.argmax(1) == groups[others]).mean() == pytest.approx(expected, abs=0.02)
    assert np.allclose(guess.probabilities.sum(1), 1, atol=1e-5)


def _payloads(steps: np.ndarray, labels: np.ndarray) -> Payloads:
    channels = np.tile(np.arange(steps.shape[1], dtype=np.uint8), (len(steps), 1))
    return Payloads(channels, steps[:, :, None, None], labels, np.zeros_like(labels), steps.shape[1], 1 / 255)


def _entropy(share: float) -> float:
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


def test_so_many_bits_tell_no_more_of_a_picture() -> None:
    """Independent pixels of one variance: D = variance x 2^-2R; the best code of one bit a pixel errs by more."""
    rng = np.random.default_rng(3)
    alike = rng.normal(size=(20_000, 8)).astype(np.float32)
    for bits in (0, 4, 16, 80):
        assert rate_distortion_bound(alike, bits) == pytest.approx(2 ** (-2 * bits / 8), rel=0.03)
    signs = np.sign(alike) * math.sqrt(2 / math.pi)  # Lloyd and Max
    assert np.square(signs - alike).mean() > rate_distortion_bound(alike, 8)
    one_direction = np.outer(rng.normal(size=20_000), np.eye(8)[0] * 3).astype(np.float32)
    assert rate_distortion_bound(one_direction, 1) == pytest.approx(9 / 8 / 4, rel=0.03)
    spread = alike * np.float32([3, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])
    assert rate_distortion_bound(spread, 1) == pytest.approx((9 / 4 + 3 + 0.04) / 8, rel=0.03)
    falls = [rate_distortion_bound(spread, bits) for bits in range(0, 40, 3)]
    assert falls == sorted(falls, reverse=True)
    assert falls[0] == pytest.approx(spread.var(0).mean(), rel=1e-3)


def test_pictures_that_show_nothing_do_not_count() -> None:
    alike = np.random.default_rng(0).choice([-1, 1], (50, 3, 10)).astype(np.float32)
    assert effective_pictures(alike) == pytest.approx(50)
    few = alike.copy()
    few[5:] = 0
    assert effective_pictures(few) == pytest.approx(5)
    assert effective_pictures(np.zeros_like(alike)) == 0


def test_with_noise_the_bound_is_what_the_best_attacker_reaches_and_looking_longer_does_not_lower_it() -> None:
    """Gaussian pictures, a linear encoder, Gaussian noise: the posterior mean errs exactly so much."""
    rng = np.random.default_rng(5)
    pictures = (rng.normal(size=(20_000, 40)) * np.linspace(1, 0.1, 40)).astype(np.float32)
    encoder = rng.normal(size=(6, 40)).astype(np.float32)
    bounds = [reconstruction_bound(np.stack([encoder] * count), pictures, 0.5) for count in (1, 8)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-6)
    codes = pictures @ encoder.T + 0.5 * rng.normal(size=(20_000, 6))
    decoder, *_ = np.linalg.lstsq(codes, pictures, rcond=None)
    assert np.square(codes @ decoder - pictures).mean() == pytest.approx(bounds[0], rel=0.02)
    assert bounds[0] > reconstruction_bound(encoder[None], pictures, 0.05) > 0
    rarely = np.stack([encoder, *[np.zeros_like(encoder)] * 3])
    left_out = reconstruction_bound(encoder[None], pictures, 0.5, count=4)
    assert left_out == pytest.approx(reconstruction_bound(rarely, pictures, 0.5), rel=1e-6)
    assert left_out > bounds[0]
    assert reconstruction_bound(rarely[:0], pictures, 0.5, count=4) == pytest.approx(pictures.var(0).mean(), rel=1e-3)


def test_the_bound_is_the_same_where_derivatives_outnumber_the_pictures() -> None:
    """Sixteen values at two thousand pictures are more than an attacker's pictures: then the other system is solved."""
    rng = np.random.default_rng(0)
    jacobians = rng.normal(0, 1, (40, 50, 30)).astype(np.float32)
    pictures = rng.random((60, 30)).astype(np.float32)
    information = np.einsum("pvi,pvj->ij", *[jacobians.astype(np.float64)] * 2) / 40 / 0.5**2
    least = np.trace(np.linalg.inv(information + np.linalg.inv(np.cov(pictures.T)))) / 30
    assert reconstruction_bound(jacobians, pictures, 0.5) == pytest.approx(least, rel=1e-4)
    few = reconstruction_bound(jacobians[:1], pictures, 0.5)
    information = np.einsum("vi,vj->ij", *[jacobians[0].astype(np.float64)] * 2) / 0.5**2
    least = np.trace(np.linalg.inv(information + np.linalg.inv(np.cov(pictures.T)))) / 30
    assert few == pytest.approx(least, rel=1e-4), "fifty are fewer than sixty"
