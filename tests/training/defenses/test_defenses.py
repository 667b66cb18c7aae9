"""Each defence trains in the same loop, leaves in the same bundle, and does what its paper says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dcp_sdk.errors import ConfigError
from dcp_sdk.obfuscate import Obfuscator
from tests.trained import train_and_export
from training.config import Recipe
from training.defenses import DEFENSES, Batch, defense_of
from training.defenses.base import inner
from training.defenses.gaussian_noise import GaussianNoiseLayer
from training.defenses.nopeek import distance_correlation
from training.defenses.osia import contrastive_loss
from training.defenses.shredder import LearntNoise
from training.networks import SplitModel, StaticPruner

PLAIN = ["pruning.rule=none", "pruning.ratio=0"]
OVERRIDES = {
    "none": PLAIN,
    "random": ["pruning.rule=random"],
    "dynamic": [],
    "feature_boosting": ["pruning.pruner=saliency", "defense.name=feature_boosting"],
    "gradual_pruning": ["pruning.rule=static", "defense.name=gradual_pruning"],
    "latent_pruning": [
        "defense.name=latent_pruning",
        "network.bottleneck.channels=6",
        "network.bottleneck.noise=0.5",
        "network.bottleneck.bits=4",
        "pruning.ratio=0.5",
    ],
}
NOISY = {"shredder", "osia", "gaussian_noise", "latent_pruning"}


def overrides(name: str) -> list[str]:
    return OVERRIDES.get(name, [*PLAIN, f"defense.name={name}"])


def recipe(name: str, *more: str) -> Recipe:
    return Recipe.load("generated", [*overrides(name), *more])


@pytest.fixture(scope="module")
def batch() -> Batch:
    torch.manual_seed(1)
    pictures = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    return Batch(pictures, torch.arange(16) % 2, torch.arange(16) % 3)


def touched(model: SplitModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of each network that the loss reaches."""
    for module in model.networks().values():
        module.zero_grad()
    loss.backward()
    return {
        name: torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        for name, module in model.networks().items()
        if any(p.grad is not None and p.grad.any() for p in module.parameters())
    }


@pytest.mark.parametrize("name", DEFENSES)
def test_it_trains_exports_and_runs(name: str, tmp_path: Path) -> None:
    pair = train_and_export(tmp_path, *overrides(name))
    pair.parity.check()
    contract = pair.manifest.contract
    settings = pair.manifest.provenance.settings
    assert (settings["defense"] or {"name": settings["pruning"]["rule"]})["name"] == name
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    obfuscator = Obfuscator(pair.bundle, contract)
    first, second = obfuscator.run(pictures), obfuscator.run(pictures)
    same = all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert same == (name not in NOISY | {"random"})
    assert first[0].shape == (8, contract.pruning.kept)


@pytest.mark.parametrize(
    "wrong",
    [
        ["defense.name=nopeek"],
        ["pruning.rule=static"],
        ["pruning.pruner=saliency"],
        ["pruning.rule=random", "pruning.balance=1"],
        ["pruning.pruner=saliency", "defense.name=feature_boosting", "pruning.balance=1"],
        [*PLAIN, "defense.name=feature_boosting"],
        ["defense.name=magic"],
        [*PLAIN, "defense.name=latent_pruning"],
        [*PLAIN, "defense.name=gaussian_noise", "network.bottleneck.channels=4"],
    ],
)
def test_contradictions_are_refused(wrong: list[str]) -> None:
    with pytest.raises(ConfigError):
        Recipe.load("generated", wrong)


def test_maximum_entropy_leaves_the_adversary_to_learn(batch: Batch) -> None:
    """What hides reaches the client network alone; what the adversary learns reaches the adversary alone."""
    torch.manual_seed(0)
    defense = defense_of(recipe("maximum_entropy"), 2, 3)
    model = defense.build()
    loss = defense.losses(model, batch, 0.5).defense
    assert loss is not None
    found = touched(model, loss)
    assert set(found) == {"client", "adversary"}
    stronger = defense_of(recipe("maximum_entropy", "defense.weight=3"), 2, 3)
    again = touched(model, stronger.losses(model, batch, 0.5).defense)
    assert torch.allclose(again["adversary"], found["adversary"], atol=1e-5)
    assert torch.allclose(again["client"], 3 * found["client"], atol=1e-4)


def test_deep_obfuscator_turns_both_adversaries_against_the_client(batch: Batch) -> None:
    torch.manual_seed(0)
    strong, weak = (
        defense_of(
            recipe("deep_obfuscator", f"defense.attribute_weight={w}", f"defense.reconstruction_weight={w}"), 2, 3
        )
        for w in (2, 1)
    )
    model = strong.build()
    ours, theirs = (touched(model, defense.losses(model, batch, 0.5).defense) for defense in (strong, weak))
    assert set(ours) == {"client", "adversary", "reconstructor"}
    assert torch.allclose(ours["client"], 2 * theirs["client"], atol=1e-4)
    for adversary in ("adversary", "reconstructor"):
        assert torch.allclose(ours[adversary], theirs[adversary], atol=1e-5)


def test_distance_correlation_knows_alike_from_independent() -> None:
    torch.manual_seed(0)
    ours, other = torch.randn(200, 6), torch.randn(200, 6)
    assert distance_correlation(ours, 3 * ours + 1) == pytest.approx(1, abs=1e-3)
    assert distance_correlation(ours, ours**2) > distance_correlation(ours, other) + 0.1
    assert distance_correlation(ours, other) == pytest.approx(float(distance_correlation(other, ours)), abs=1e-5)


def test_the_contrastive_loss_wants_classes_together_and_apart() -> None:
    task = torch.tensor([0, 0, 1, 1])
    together = torch.tensor([[1.0, 0], [2, 0], [0, 1], [0, 3]])
    mixed = together[[0, 2, 1, 3]]
    assert contrastive_loss(together, task, margin=1.0) < 1e-6
    assert contrastive_loss(mixed, task, margin=1.0) > 0.5


def test_gaussian_noise_is_as_large_as_it_says() -> None:
    torch.manual_seed(0)
    layer = GaussianNoiseLayer((2, 1, 1), level=0.5)
    values = 100 + torch.randn(4096, 2, 1, 1) * torch.tensor([1.0, 8.0]).view(1, 2, 1, 1)
    for _ in range(200):
        layer(values)
    noise = layer.eval()(values) - values
    assert torch.allclose(noise.std(0).flatten(), torch.tensor([0.5, 4.0]), rtol=0.1)
    assert not torch.equal(layer(values), layer(values))


def test_learnt_noise_is_fresh_each_time_in_the_learnt_order() -> None:
    torch.manual_seed(0)
    layer = LearntNoise((4, 8, 8), tensors=1, spread=2.0)
    layer.fit()
    layer.eval()
    base = torch.full((64, 4, 8, 8), 1000.0)
    noise = (layer(base) - base).flatten(1)
    assert not torch.equal(noise[0], noise[1])
    learnt_order = layer.noise[0].argsort()
    assert noise[:, learnt_order].diff(dim=1).min() >= 0
    assert (noise - layer.location).abs().mean() == pytest.approx(float(layer.scale), rel=0.1)


def test_shredder_freezes_the_network_and_then_learns_noise(batch: Batch) -> None:
    torch.manual_seed(0)
    defense = defense_of(recipe("shredder"), 2, 3)
    model = defense.build()
    assert set(touched(model, defense.losses(model, batch, 0.1).sum)) == {"client", "head"}
    before = {name: value.clone() for name, value in model.client.state_dict().items()}
    assert set(touched(model, defense.losses(model, batch, 0.9).sum)) == {"transform"}
    assert all(torch.equal(value, before[name]) for name, value in model.client.state_dict().items())


def test_gradual_pruning_takes_one_channel_after_the_other(batch: Batch) -> None:
    torch.manual_seed(0)
    defense = defense_of(recipe("gradual_pruning"), 2, 3)
    model = defense.build()
    optimizer = torch.optim.Adam([p for module in model.networks().values() for p in module.parameters()], lr=1e-3)
    left: set[int] = set(range(model.activations_shape[0]))
    for step in range(60):
        losses = defense.losses(model, batch, step / 60)
        optimizer.zero_grad()
        losses.sum.backward()
        optimizer.step()
        if step % 10 == 9:
            kept = round(max(0.0, 1 - step / 60 / 0.67) * 48) + 16
            now = set(inner(model.pruner, StaticPruner).relevance.topk(kept).indices.tolist())
            assert len(now - left) <= 2, "what was pruned came back"
            left = now
    assert len(left) == 16


def test_boosting_multiplies_what_it_keeps(batch: Batch) -> None:
    torch.manual_seed(0)
    defense = defense_of(recipe("feature_boosting"), 2, 3)
    model = defense.build()
    sent = defense.send(model, batch.pictures)
    kept = sent.mask[:, :, 0, 0] > 0
    assert torch.allclose(sent.payload[kept], (sent.activations * sent.scores[:, :, None, None])[kept])
    assert not sent.payload[~kept].any()
    assert "pruner" in touched(model, defense.losses(model, batch, 0.5).task)
    assert replace(model, transform=None).networks().keys() < model.networks().keys()
