from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import NetworkConfig, PruningConfig, Recipe
from training.defenses import defense_of, send
from training.networks import SplitModel
from training.pruning import hard_mask, imbalance, kept_indices, soft_mask, straight_through_mask


@st.composite
def scores_and_kept(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """Few distinct values, so that ties are the rule."""
    channels = draw(st.integers(1, 40))
    rows = draw(st.lists(st.lists(st.integers(-2, 2), min_size=channels, max_size=channels), min_size=1, max_size=4))
    return torch.tensor(rows, dtype=torch.float32), draw(st.integers(1, channels))


@given(scores_and_kept())
@settings(deadline=None)
def test_exactly_k_channels_the_best_ones_and_the_lower_of_equals(case: tuple[torch.Tensor, int]) -> None:
    scores, kept = case
    assert hard_mask(scores, kept).sum(1).eq(kept).all()
    for row, ids in zip(scores.tolist(), kept_indices(scores, kept).tolist(), strict=True):
        by_rule = sorted(range(len(row)), key=lambda channel: (-row[channel], channel))[:kept]
        assert ids == sorted(by_rule)


@given(scores_and_kept())
@settings(deadline=None)
def test_straight_through_is_hard_in_value_and_soft_in_gradient(case: tuple[torch.Tensor, int]) -> None:
    scores, kept = case
    weight = torch.linspace(-1, 1, scores.numel()).view_as(scores)
    through, soft = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    mask = straight_through_mask(through, kept, 0.3)
    assert torch.equal(mask, hard_mask(scores, kept))
    (mask * weight).sum().backward()
    (soft_mask(soft, kept, 0.3) * weight).sum().backward()
    assert torch.equal(through.grad, soft.grad)
    assert through.grad.abs().sum() > 0


def test_imbalance_is_nought_for_even_loads_and_c_over_k_less_one_for_one_choice() -> None:
    assert imbalance(hard_mask(torch.eye(12), 1)) < 1e-9
    assert float(imbalance(hard_mask(torch.rand(1, 12), 3).expand(8, 12))) == pytest.approx(12 / 3 - 1)


def test_a_pruner_that_minimises_imbalance_no_longer_chooses_the_same_for_all() -> None:
    torch.manual_seed(0)
    pictures = torch.randn(64, 12)
    pruner = torch.nn.Linear(12, 12)
    with torch.no_grad():
        pruner.bias += torch.linspace(0, 4, 12)  # a choice that collapsed
    before = imbalance(hard_mask(pruner(pictures), 3))
    optimizer = torch.optim.Adam(pruner.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        imbalance(straight_through_mask(pruner(pictures), 3, 0.3)).backward()
        optimizer.step()
    masks = hard_mask(pruner(pictures), 3)
    assert before > 1.5
    assert imbalance(masks) < 0.1
    assert len(masks.unique(dim=0)) > 32


@pytest.fixture(scope="module", params=["light", "paper"])
def model(request: pytest.FixtureRequest) -> SplitModel:
    """Networks whose running statistics have seen some pictures."""
    recipe = Recipe.load("generated").model_copy(
        update={
            "network": NetworkConfig(split=6),
            "pruning": PruningConfig(ratio=0.9, pruner=request.param),
        }
    )
    torch.manual_seed(3)
    model = defense_of(recipe, 2, 3).build()
    for _ in range(4):
        model.pruner(model.client(torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)))
    for module in model.networks().values():
        module.eval()
    return model


@torch.no_grad()
def test_the_mask_of_a_picture_does_not_depend_on_its_batch(model: SplitModel) -> None:
    pictures = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures[0], pictures[1] = 0, 255
    masks = [torch.cat([send(model, part, 13).mask for part in pictures.split(size)]) for size in (1, 7, 64)]
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert masks[0].sum((1, 2, 3)).eq(13).all()
    assert len(torch.unique(masks[0].flatten(1), dim=0)) > 1, "a constant mask would pass for the wrong reason"
