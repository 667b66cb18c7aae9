from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.config import BottleneckConfig, NetworkConfig, PruningConfig, Recipe
from training.defenses import defense_of
from training.networks import RemainingLayers


def recipe(arch: str, split: int, pruner: str = "light") -> Recipe:
    return Recipe.load("generated").model_copy(
        update={
            "network": NetworkConfig.model_validate({"arch": arch, "split": split}),
            "pruning": PruningConfig.model_validate({"ratio": 0.9, "pruner": pruner}),
        }
    )


@pytest.mark.parametrize(("arch", "split"), list(itertools.product(["resnet18", "resnet34", "resnet50"], range(3, 9))))
@torch.no_grad()
def test_any_resnet_splits_anywhere(arch: str, split: int) -> None:
    model = defense_of(recipe(arch, split), 2, 5).build()
    for module in model.networks().values():
        module.eval()
    activations = model.client(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert activations.shape[1:] == model.activations_shape
    assert activations.min() >= 0
    assert model.pruner(activations).shape == activations.shape[:2]
    assert model.head(activations).shape == (2, 2)
    assert model.adversary(activations).shape == (2, 5)


def test_the_papers_pruner_scores_every_channel() -> None:
    model = defense_of(recipe("resnet18", 6, "paper"), 2, 5).build()
    assert model.pruner(torch.rand(2, *model.activations_shape)).shape == (2, 128)


def test_the_light_pruner_costs_little() -> None:
    model = defense_of(recipe("resnet18", 6), 2, 5).build()
    pictures = torch.zeros(1, 3, 112, 112, dtype=torch.uint8)
    with FlopCounterMode(display=False) as client:
        activations = model.client(pictures)
    with FlopCounterMode(display=False) as pruner:
        model.pruner(activations)
    assert pruner.get_total_flops() < 0.05 * client.get_total_flops()


@pytest.mark.parametrize("split", range(3, 9))
def test_what_follows_a_neck_has_finite_gradients_in_half_precision(split: int) -> None:
    """A strided convolution on a single value has none on the CPU: see RemainingLayers."""
    torch.manual_seed(0)
    network = RemainingLayers("resnet18", split, 2, BottleneckConfig(channels=3))
    network.to(memory_format=torch.channels_last)
    for _ in range(10):
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(torch.rand(32, 3, 1, 1))
        network.zero_grad()
        torch.nn.functional.cross_entropy(logits.float(), torch.arange(32) % 2).backward()
        assert all(p.grad.isfinite().all() and p.grad.abs().max() < 100 for p in network.parameters())
