"""Each gradient route of section 3 of the paper, present where it must be and absent where it must not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from training.config import Recipe
from training.defenses import Batch, Losses, defense_of, send
from training.networks import SplitModel

RECIPE = Recipe.load("generated", ["pruning.temperature=0.3"])
KEPT, TEMPERATURE = 16, 0.3
Gradients = dict[str, torch.Tensor]


@pytest.fixture
def model() -> SplitModel:
    torch.manual_seed(0)
    return defense_of(RECIPE, 2, 3).build()


@pytest.fixture(scope="module")
def batch() -> Batch:
    torch.manual_seed(1)
    pictures = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    return Batch(pictures, torch.arange(8) % 2, torch.arange(8) % 3)


def gradients(model: SplitModel) -> Gradients:
    """All gradients of each network in one vector; zeros where there is none. Clears them."""
    found = {}
    for name, module in model.networks().items():
        parts = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]
        found[name] = torch.cat([part.flatten() for part in parts])
        module.zero_grad()
    return found


def losses_of(model: SplitModel, batch: Batch, weight: float = 1.0) -> Losses:
    pruning = RECIPE.pruning.model_copy(update={"adversary_weight": weight})
    return defense_of(RECIPE.model_copy(update={"pruning": pruning}), 2, 3).losses(model, batch, 0.5)


def run(model: SplitModel, batch: Batch, which: str, weight: float = 1.0) -> Gradients:
    getattr(losses_of(model, batch, weight), which).backward()
    return gradients(model)


def test_the_task_loss_reaches_client_head_and_pruner_only(model: SplitModel, batch: Batch) -> None:
    found = run(model, batch, "task")
    assert {name for name, gradient in found.items() if gradient.any()} == {"client", "head", "pruner"}


def test_what_keeps_the_mask_lively_reaches_the_pruner_only(model: SplitModel, batch: Batch) -> None:
    lively = RECIPE.model_copy(update={"pruning": RECIPE.pruning.model_copy(update={"balance": 2.0})})
    plain = losses_of(model, batch)
    more = defense_of(lively, 2, 3).losses(model, batch, 0.5)
    (more.sum - plain.sum).backward()
    found = gradients(model)
    assert found["pruner"].any()
    for name in set(found) - {"pruner"}:
        assert torch.allclose(found[name], torch.zeros(()), atol=1e-5), name


def test_the_adversary_loss_reaches_adversary_and_pruner_only(model: SplitModel, batch: Batch) -> None:
    found = run(model, batch, "defense")
    assert {name for name, gradient in found.items() if gradient.any()} == {"adversary", "pruner"}


def test_the_adversary_minimises_what_the_pruner_maximises(model: SplitModel, batch: Batch) -> None:
    pictures, _, sensitive = batch
    sent = send(model, pictures, KEPT, TEMPERATURE)
    activations, mask = sent.activations.detach(), sent.mask
    F.cross_entropy(model.adversary(activations * mask), sensitive).backward()
    plain = gradients(model)
    for weight in (0.0, 1.0, 2.5):
        found = run(model, batch, "defense", weight)
        assert torch.allclose(found["adversary"], plain["adversary"], atol=1e-6)
        assert torch.allclose(found["pruner"], -weight * plain["pruner"], atol=1e-6)


def test_the_client_does_not_learn_through_the_scores(model: SplitModel, batch: Batch) -> None:
    """With the mask held fixed, the client's gradient is the same: none of it comes through the pruner."""
    pictures, task, _ = batch
    found = run(model, batch, "task")
    sent = send(model, pictures, KEPT, TEMPERATURE)
    activations, mask = sent.activations, sent.mask.detach()
    F.cross_entropy(model.head(activations * mask), task).backward()
    assert torch.allclose(found["client"], gradients(model)["client"], atol=1e-6)


def test_one_backward_pass_over_the_sum_gives_all_routes_at_once(model: SplitModel, batch: Batch) -> None:
    task, adversary, both = (run(model, batch, which) for which in ("task", "defense", "sum"))
    for name in both:
        assert torch.allclose(both[name], task[name] + adversary[name], atol=1e-6)


def test_without_an_adversary_the_sum_is_the_task_loss(model: SplitModel, batch: Batch) -> None:
    alone = dataclasses.replace(model, adversary=None, pruner=None)
    plain = Recipe.load("generated", ["pruning.rule=none", "pruning.ratio=0"])
    losses = defense_of(plain, 2, 3).losses(alone, batch, 0.5)
    assert losses.defense is None
    assert losses.sum is losses.task
