from __future__ import annotations

import pytest
import torch

from dcp_sdk.errors import ConfigError
from training.config import Recipe
from training.defense_config import LatentPruning
from training.defenses import Batch, defense_of
from training.defenses.base import inner
from training.defenses.latent_pruning import AdversaryPanel, conditional_dependence, residual_information
from training.defenses.noise import NoisyRounding, Rounding
from training.networks import RemainingLayers

SETTINGS = [
    "defense.name=latent_pruning",
    "network.bottleneck.channels=6",
    "network.bottleneck.side=2",
    "network.bottleneck.noise=0.5",
    "network.bottleneck.bits=4",
    "pruning.ratio=0.5",
]


def recipe(*more: str) -> Recipe:
    return Recipe.load("generated", [*SETTINGS, *more])


@pytest.fixture(scope="module")
def batch() -> Batch:
    torch.manual_seed(1)
    pictures = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    return Batch(pictures, torch.arange(64) % 2, torch.arange(64) % 3)


def reached(*more: str, batch: Batch, progress: float = 0.5) -> dict[str, torch.Tensor]:
    """Gradients of the defence's own loss, by network."""
    torch.manual_seed(0)
    defense = defense_of(recipe(*more), 2, 3)
    model = defense.build()
    loss = defense.losses(model, batch, progress).defense
    assert loss is not None
    loss.backward()
    return {
        name: torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        for name, module in model.networks().items()
        if any(p.grad is not None and p.grad.any() for p in module.parameters())
    }


def test_adversaries_learn_whatever_is_hidden_from_them(batch: Batch) -> None:
    """What hides moves client network and pruner alone; what adversaries learn moves adversaries alone."""
    weak, strong, none = (reached(f"defense.weight={weight}", batch=batch) for weight in (1, 3, 0))
    assert set(weak) == {"client", "pruner", "adversary"}
    assert set(none) == {"adversary"}
    assert torch.allclose(strong["adversary"], weak["adversary"], atol=1e-5)
    assert torch.allclose(strong["client"], 3 * weak["client"], atol=1e-4)


def test_what_hides_grows_until_its_onset_is_over(batch: Batch) -> None:
    first, quarter, later = (reached("defense.onset=0.4", batch=batch, progress=done) for done in (0.0, 0.1, 0.9))
    full = reached(batch=batch, progress=0.0)
    assert set(first) == {"adversary"}
    assert torch.allclose(4 * quarter["client"], full["client"], atol=1e-4)
    assert torch.allclose(later["client"], full["client"], atol=1e-5)


def test_static_channels_are_learnt_and_the_same_for_all(batch: Batch) -> None:
    torch.manual_seed(0)
    defense = defense_of(recipe("pruning.rule=static"), 2, 3)
    model = defense.build()
    mask = defense.send(model, batch.pictures).mask
    assert mask is not None
    assert (mask == mask[:1]).all()
    defense.losses(model, batch, 0.5).task.backward()
    assert model.pruner is not None
    assert all(p.grad is not None and p.grad.any() for p in model.pruner.parameters())
    drawn = defense_of(recipe("pruning.rule=static", "pruning.learnt=false"), 2, 3).build()
    assert drawn.pruner is not None
    assert not any(p.requires_grad for p in drawn.pruner.parameters())


def test_adversaries_remember_the_last_values_and_start_anew_in_turn() -> None:
    torch.manual_seed(0)
    panel = AdversaryPanel(2, 2, 3, LatentPruning(name="latent_pruning", adversaries=2, memory=8))
    for step in range(3):
        values = torch.full((4, 2), float(step))
        panel.remember(values, Batch(torch.zeros(4), torch.zeros(4).long(), torch.arange(4) % 3))
    assert sorted(panel.remembered[:, 0].tolist()) == [1.0] * 4 + [2.0] * 4
    assert torch.allclose(panel.expected(torch.tensor([0])), torch.tensor([[7, 4, 4]]) / 15)
    weights = [panel.adversaries[number][1].weight.clone() for number in range(2)]
    panel.restart_one()
    assert not torch.equal(panel.adversaries[0][1].weight, weights[0])
    assert torch.equal(panel.adversaries[1][1].weight, weights[1])


def test_dependence_is_nought_for_what_the_task_alone_explains() -> None:
    torch.manual_seed(0)
    task = torch.randint(0, 2, (4000,))
    sensitive = (task * 2 + torch.randint(0, 2, (4000,))) % 3  # depends on the task
    batch = Batch(torch.zeros(4000), task, sensitive)
    explained = task[:, None] + 0.1 * torch.randn(4000, 2)
    telling = explained + 0.3 * torch.nn.functional.one_hot(sensitive, 3)[:, :2]
    assert abs(float(conditional_dependence(explained, batch))) < 0.01
    assert conditional_dependence(telling, batch) > 0.2
    small = [
        float(conditional_dependence(explained[rows], Batch(*(part[rows] for part in batch))))
        for rows in torch.arange(4000).split(40)
    ]
    assert abs(sum(small) / len(small)) < 0.02, "biased in small batches"


def test_compression_counts_what_is_told_beyond_the_task() -> None:
    """The bound lies above what a channel of known capacity carries, and is nought for the answer alone."""
    torch.manual_seed(0)
    task = torch.arange(4000) % 2
    explained = task[:, None].float().expand(-1, 2)
    assert residual_information(explained, task, 0.3) == 0
    spread = 0.4
    values = explained + spread * torch.randn(4000, 2)
    capacity = torch.log1p(torch.tensor(spread**2 / 0.3**2))  # of two Gaussian channels, half of it each
    bound = residual_information(values, task, 0.3)
    assert capacity < bound
    assert bound == pytest.approx(2 * spread**2 / (2 * 0.3**2), rel=0.05)
    assert residual_information(values, torch.zeros(4000), 0.3) > bound, "not conditional"


@pytest.mark.parametrize("more", ["defense.objective=club", "defense.compression=0.1"])
def test_every_objective_moves_the_client_network(more: str, batch: Batch) -> None:
    plain, changed = reached(batch=batch), reached(more, batch=batch)
    assert set(changed) == {"client", "pruner", "adversary"}
    assert not torch.allclose(plain["client"], changed["client"])
    assert torch.allclose(plain["adversary"], changed["adversary"])


def test_compression_without_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="compression needs"):
        recipe("defense.compression=0.1", "network.bottleneck.noise=0")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_rounding_keeps_the_levels_of_the_wire_and_the_gradient(bits: int) -> None:
    values = torch.linspace(-0.51, 1.51, 102, requires_grad=True)
    rounded = Rounding(bits)(values)
    steps = rounded.detach() * (2**bits - 1)
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert len(steps.round().unique()) == min(2**bits, 52)
    rounded.sum().backward()
    inside = (values >= 0) & (values <= 1)
    assert torch.equal(values.grad, inside.float())


def test_noise_is_as_large_as_it_says() -> None:
    torch.manual_seed(0)
    layer = NoisyRounding((2, 1, 1), deviation=0.1, bits=8)
    noise = layer(torch.full((20000, 2, 1, 1), 0.5)) - 0.5
    assert noise.std().item() == pytest.approx(0.1, rel=0.03)
    assert noise.mean().abs() < 0.003
    given = torch.rand(3, 2, 2, 1, 1)
    assert torch.equal(layer(torch.zeros(3, 2, 1, 1), None, given), layer(torch.zeros(3, 2, 1, 1), None, given))


def test_a_neck_sends_standardised_averages(batch: Batch) -> None:
    torch.manual_seed(0)
    defense = defense_of(recipe("network.bottleneck.convolutions=1"), 2, 3)
    model = defense.build()
    assert model.activations_shape == (6, 2, 2)
    values = defense.send(model, batch.pictures).activations
    assert values.shape == (64, 6, 2, 2)
    assert values.min() >= 0
    assert values.max() <= 1
    assert torch.allclose(values.mean((0, 2, 3)), torch.full((6,), 0.5), atol=0.05)
    assert torch.allclose(values.std((0, 2, 3)), torch.full((6,), 0.25), atol=0.05)


def test_the_pruner_is_the_one_that_the_manifest_will_name() -> None:
    pruner = defense_of(recipe("pruning.pruner=paper"), 2, 3).build().pruner
    assert isinstance(inner(pruner, RemainingLayers), RemainingLayers)
    with pytest.raises(ConfigError, match="saliency"):
        recipe("pruning.pruner=saliency")


def test_panel_is_found_behind_its_wrapper() -> None:
    model = defense_of(recipe(), 2, 3).build()
    assert len(inner(model.adversary, AdversaryPanel).adversaries) == 4
