"""What draws without a network finds the picture where it is, and the mean picture where nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.attacks import Knowledge
from training.attacks.likeness import kernel_ridge, mean_of_nearest, nearest
from training.attacks.reconstruction import Pictures, Reconstruct
from training.generated import draw_pictures

from .conftest import Send

MEANS = (kernel_ridge, mean_of_nearest)


@pytest.fixture(scope="module")
def informed(knowledge: Knowledge, send: Send) -> Knowledge:
    """Give leaked pairs of a few scenes, each taken many times."""
    seen = takes(knowledge, 20, seed=1)
    return dataclasses.replace(knowledge, leaked=send(seen), pictures=seen)


@pytest.fixture(scope="module")
def unseen(informed: Knowledge) -> Pictures:
    """Show the same scenes, taken anew."""
    return takes(informed, 4, seed=2)


def takes(knowledge: Knowledge, count: int, seed: int) -> Pictures:
    scenes, _, _ = draw_pictures(12, knowledge.pictures.shape[1], seed=8)
    many = np.repeat(scenes, count, axis=0).astype(np.float64)
    return (many + np.random.default_rng(seed).normal(0, 20, many.shape)).clip(0, 255).astype(np.uint8)


def error(drawn: Pictures, truth: Pictures) -> float:
    return float(np.square(drawn.astype(np.float32) - truth).mean())


def of_mean_picture(knowledge: Knowledge, truth: Pictures) -> float:
    return error(np.broadcast_to(knowledge.pictures.mean(0).round().astype(np.uint8), truth.shape), truth)


@pytest.mark.parametrize("draw", [*MEANS, nearest])
def test_draws_the_picture_where_the_payload_tells_it(
    draw: Reconstruct, informed: Knowledge, unseen: Pictures, send: Send
) -> None:
    drawn = draw(informed, send(unseen))
    assert drawn.shape == unseen.shape
    assert drawn.dtype == np.uint8
    assert error(drawn, unseen) < 0.7 * of_mean_picture(informed, unseen)
    assert error(drawn, unseen) < 0.7 * error(drawn, unseen[::-1])


@pytest.mark.parametrize("draw", MEANS)
def test_falls_back_to_the_mean_picture_where_payloads_tell_nothing(
    draw: Reconstruct, informed: Knowledge, unseen: Pictures, send: Send
) -> None:
    order = np.random.default_rng(0).permutation(len(informed.pictures))
    misled = dataclasses.replace(informed, pictures=informed.pictures[order])
    assert error(draw(misled, send(unseen)), unseen) < 1.15 * of_mean_picture(informed, unseen)


def test_the_nearest_to_a_leaked_payload_is_its_own_picture(informed: Knowledge) -> None:
    assert np.array_equal(nearest(informed, informed.leaked), informed.pictures)


@pytest.mark.parametrize("draw", [*MEANS, nearest])
def test_scale_and_order_of_the_payload_decide_nothing(
    draw: Reconstruct, informed: Knowledge, unseen: Pictures, send: Send
) -> None:
    payloads = send(unseen)
    louder = dataclasses.replace(informed, leaked=dataclasses.replace(informed.leaked, scale=informed.leaked.scale * 7))
    plain, scaled = draw(informed, payloads), draw(louder, dataclasses.replace(payloads, scale=payloads.scale * 7))
    assert np.abs(plain.astype(int) - scaled).mean() < 1
    backwards = draw(informed, payloads[np.arange(len(unseen))[::-1]])[::-1]
    assert np.abs(plain.astype(int) - backwards).mean() < 0.01
