"""Inversion and deep image prior find the picture where it is, the right one, and nothing where nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from training.attacks import SEARCHES, Knowledge
from training.attacks.inversion import best_of
from training.attacks.reconstruction import Pictures
from training.metrics import similarity

from .conftest import Send


def likeness(drawn: Pictures, truth: Pictures) -> float:
    return similarity(drawn, truth)[0]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds_the_picture_behind_each_payload(
    name: str, knowledge: Knowledge, faces: Pictures, send: Send
) -> None:
    drawn = SEARCHES[name](knowledge, send(faces))
    mean = np.broadcast_to(faces.mean(0).round().astype(np.uint8), faces.shape).copy()
    assert drawn.shape == faces.shape
    assert drawn.dtype == np.uint8
    assert likeness(drawn, faces) > likeness(mean, faces) + 0.1
    assert likeness(drawn, faces) > likeness(drawn, faces[::-1].copy()) + 0.1


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds_nothing_in_noise(name: str, knowledge: Knowledge, faces: Pictures, send: Send) -> None:
    payloads = send(faces)
    noise = np.random.default_rng(0).permuted(payloads.features.reshape(len(faces), -1), axis=1)
    drawn = SEARCHES[name](knowledge, dataclasses.replace(payloads, features=noise.reshape(payloads.features.shape)))
    mean = np.broadcast_to(faces.mean(0).round().astype(np.uint8), faces.shape).copy()
    assert likeness(drawn, faces) < likeness(mean, faces)


def test_of_several_starting_points_the_best_is_kept() -> None:
    objectives = torch.tensor([3.0, 1.0, 2.0, 5.0, 6.0, 4.0])
    pictures = torch.arange(6.0)[:, None, None, None].expand(-1, 3, 2, 2)
    assert best_of(objectives, pictures, 3)[:, 0, 0, 0].tolist() == [1.0, 5.0]
