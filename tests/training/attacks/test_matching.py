from __future__ import annotations

import dataclasses

import numpy as np
import torch

from tests.trained import Trained
from training.attacks.device_twin import DeviceTwin
from training.attacks.matching import PayloadMatch, straight_through_steps, total_variation
from training.attacks.reconstruction import as_tensor
from training.reports.panels import panel_payloads


def test_the_quantiser_rounds_and_passes_the_gradient() -> None:
    values = torch.tensor([0.4, 0.6, 7.2], requires_grad=True)
    steps = straight_through_steps(values, torch.tensor([0.0, 0.0, 9.0]))
    assert steps.tolist() == [0.0, 1.0, 7.0]
    (steps * torch.tensor([1.0, 2.0, 3.0])).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 2.0, 3.0]


def test_a_saturated_value_need_only_reach_the_top() -> None:
    values = torch.tensor([900.0, 200.0, 900.0], requires_grad=True)
    seen = torch.tensor([255.0, 255.0, 30.0])
    (straight_through_steps(values, seen) - seen).square().sum().backward()
    assert values.grad is not None
    above, below, too_high = values.grad.tolist()
    assert above == 0
    assert below < 0  # up it goes
    assert too_high > 0  # down it comes


def test_the_distance_is_least_for_the_picture_itself(trained: Trained) -> None:
    """Values and mask both: scores decide which channels of this bundle are sent."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    payloads = panel_payloads(trained.bundle, trained.manifest, pictures)
    match = PayloadMatch(DeviceTwin(trained.bundle, trained.manifest.contract), trained.manifest.contract, payloads)
    own = match(as_tensor(pictures), torch.tensor([0, 1]))
    swapped = match(as_tensor(pictures), torch.tensor([1, 0]))
    assert own.max() < 0.1 * swapped.min()


def test_another_mask_is_a_distance(trained: Trained) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    payload = panel_payloads(trained.bundle, trained.manifest, pictures)
    others = np.setdiff1d(np.arange(payload.total_channels), payload.channels[0])[: payload.channels.shape[1]]
    twin, contract = DeviceTwin(trained.bundle, trained.manifest.contract), trained.manifest.contract
    activations, _ = twin(as_tensor(pictures))
    there = (activations[:, others] / contract.pruning.scale).round().clamp(0, 255).to(torch.uint8).numpy()
    moved = dataclasses.replace(payload, channels=others[None].astype(np.uint8), features=there)
    which = torch.tensor([0])
    assert PayloadMatch(twin, contract, payload)(as_tensor(pictures), which) < 0.05
    assert PayloadMatch(twin, contract, moved)(as_tensor(pictures), which) > 0.3


def test_total_variation_of_flat_and_of_striped_pictures() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
    assert total_variation(torch.ones(1, 3, 16, 16)).tolist() == [0.0]
    assert total_variation(stripes).tolist() == [1.0]
