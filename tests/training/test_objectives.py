"""Each gradient route of section 3 of the paper, present where it must be and absent where it must not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from training.config import Recipe
from training.networks import SplitModel, build
from training.objectives import mask_of, minmax_losses

KEPT, TEMPERATURE = 16, 0.3
Gradients = dict[str, torch.Tensor]


@pytest.fixture
def model() -> SplitModel:
    torch.manual_seed(0)
    return build(Recipe.load("generated"), 2, 3)


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    pictures = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    return pictures, torch.arange(8) % 2, torch.arange(8) % 3


def gradients(model: SplitModel) -> Gradients:
    """All gradients of each network in one vector; zeros where there is none. Clears them."""
    found = {}
    for name, module in model.modules().items():
        parts = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]
        found[name] = torch.cat([part.flatten() for part in parts])
        module.zero_grad()
    return found


def run(model: SplitModel, batch: tuple[torch.Tensor, ...], which: str, weight: float = 1.0) -> Gradients:
    losses = minmax_losses(model, *batch, kept=KEPT, temperature=TEMPERATURE, weight=weight)
    getattr(losses, which).backward()
    return gradients(model)


def test_the_task_loss_reaches_client_head_and_pruner_only(model: SplitModel, batch: tuple[torch.Tensor, ...]) -> None:
    found = run(model, batch, "task")
    assert {name for name, gradient in found.items() if gradient.any()} == {"client", "head", "pruner"}


def test_the_adversary_loss_reaches_adversary_and_pruner_only(
    model: SplitModel, batch: tuple[torch.Tensor, ...]
) -> None:
    found = run(model, batch, "adversary")
    assert {name for name, gradient in found.items() if gradient.any()} == {"adversary", "pruner"}


def test_the_adversary_minimises_what_the_pruner_maximises(model: SplitModel, batch: tuple[torch.Tensor, ...]) -> None:
    pictures, _, sensitive = batch
    activations = model.client(pictures).detach()
    mask = mask_of(model.pruner, activations, KEPT, TEMPERATURE)
    F.cross_entropy(model.adversary(activations * mask), sensitive).backward()
    plain = gradients(model)
    for weight in (0.0, 1.0, 2.5):
        found = run(model, batch, "adversary", weight)
        assert torch.allclose(found["adversary"], plain["adversary"], atol=1e-6)
        assert torch.allclose(found["pruner"], -weight * plain["pruner"], atol=1e-6)


def test_the_client_does_not_learn_through_the_scores(model: SplitModel, batch: tuple[torch.Tensor, ...]) -> None:
    """With the mask held fixed, the client's gradient is the same: none of it comes through the pruner."""
    pictures, task, _ = batch
    found = run(model, batch, "task")
    activations = model.client(pictures)
    mask = mask_of(model.pruner, activations, KEPT, TEMPERATURE).detach()
    F.cross_entropy(model.head(activations * mask), task).backward()
    assert torch.allclose(found["client"], gradients(model)["client"], atol=1e-6)


def test_one_backward_pass_over_the_sum_gives_all_routes_at_once(
    model: SplitModel, batch: tuple[torch.Tensor, ...]
) -> None:
    task, adversary, both = (run(model, batch, which) for which in ("task", "adversary", "sum"))
    for name in both:
        assert torch.allclose(both[name], task[name] + adversary[name], atol=1e-6)


def test_without_an_adversary_the_sum_is_the_task_loss(model: SplitModel, batch: tuple[torch.Tensor, ...]) -> None:
    alone = dataclasses.replace(model, adversary=None, pruner=None)
    losses = minmax_losses(alone, *batch, kept=64, temperature=TEMPERATURE, weight=1.0)
    assert losses.adversary is None
    assert losses.sum is losses.task
