"""The torch twin computes what the deployed graph computes, and lets a gradient reach the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dcp_sdk.bundles.manifest import Manifest
from export.fused import DeviceGraph
from export.graphs import write_graph
from export.parity import open_graph
from tests.tiny import PAPER, SHIPPED
from tests.trained import Trained
from training.attacks.device_twin import DeviceTwin
from training.attacks.reconstruction import as_tensor
from training.defenses.noise import GaussianNoiseLayer
from training.networks import ClientNetwork, RemainingLayers, SaliencyPruner


def inside(bundle: Path, pictures: np.ndarray, names: list[str]) -> list[np.ndarray]:
    graph = onnx.load(bundle / "device.onnx")
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_graph(graph)
    inputs = {"image": pictures}
    for spec in session.get_inputs()[1:]:
        inputs[spec.name] = np.random.default_rng(0).random((len(pictures), spec.shape[1]), np.float32)
    values: list[np.ndarray] = session.run(names, inputs)
    return values


def pictures_for(manifest: Manifest) -> np.ndarray:
    size_px = manifest.contract.preprocessing.size_px
    return np.random.default_rng(0).integers(0, 256, (3, size_px, size_px, 3), np.uint8)


@pytest.mark.parametrize("which", ["paper", "trained"])
def test_activations_and_scores_are_those_of_the_graph(which: str, trained: Trained) -> None:
    bundle = PAPER if which == "paper" else trained.bundle
    manifest = Manifest.load(bundle)
    pictures = pictures_for(manifest)
    activations, scores = inside(bundle, pictures, ["activations", "scores"])
    ours, our_scores = DeviceTwin(bundle, manifest.contract)(as_tensor(pictures))
    assert our_scores is not None
    assert np.abs(ours.numpy() - activations).max() < 1e-3
    assert np.abs(our_scores.numpy() - scores).max() < 1e-3


def test_without_a_pruner_there_are_no_scores(unpruned: Trained) -> None:
    pictures = pictures_for(unpruned.manifest)
    (activations,) = inside(unpruned.bundle, pictures, ["activations"])
    ours, scores = DeviceTwin(unpruned.bundle, unpruned.manifest.contract)(as_tensor(pictures))
    assert scores is None
    assert np.abs(ours.numpy() - activations).max() < 1e-3


def test_a_gradient_reaches_the_picture_and_no_weight(trained: Trained) -> None:
    twin = DeviceTwin(trained.bundle, trained.manifest.contract)
    pictures = as_tensor(pictures_for(trained.manifest)).requires_grad_()
    activations, scores = twin(pictures)
    assert scores is not None
    (scores.sum() + activations.sum()).backward()
    assert pictures.grad is not None
    assert bool(pictures.grad.abs().sum() > 0)
    assert not any(weight.requires_grad for weight in twin.parameters())


def test_half_precision_is_near_enough(trained: Trained) -> None:
    """The searches run in bfloat16: its error must be small beside what a payload says."""
    twin = DeviceTwin(trained.bundle, trained.manifest.contract)
    pictures = as_tensor(pictures_for(trained.manifest))
    exact, _ = twin(pictures)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = twin(pictures)
    assert float((exact - rough.float()).square().mean() / exact.square().mean()) < 1e-3


class _Boost(nn.Module):
    def forward(self, activations: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return activations * scores[:, :, None, None]


@pytest.mark.parametrize("transform", ["noise", "boost"])
def test_what_is_packed_is_found_under_noise_and_after_a_boost(
    transform: str, trained: Trained, tmp_path: Path
) -> None:
    """Noise is left out; what multiplies the activations is not."""
    client = ClientNetwork("resnet18", 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    pruner = RemainingLayers("resnet18", 3, 64) if transform == "noise" else SaliencyPruner(64)
    layer = GaussianNoiseLayer((64, 16, 16), 1.0) if transform == "noise" else _Boost()
    device = DeviceGraph(client, pruner, layer, channels=64, kept=16, scale=0.05).eval()
    example = {"image": torch.zeros(2, 32, 32, 3, dtype=torch.uint8)}
    if device.uniforms:
        example["noise"] = torch.zeros(2, device.uniforms)
    write_graph(device, example, ["channels", "features"], ["activations", "scores"], tmp_path / "device.onnx")
    pictures = pictures_for(trained.manifest)
    activations, scores = inside(tmp_path, pictures, ["activations", "scores"])
    expected = activations if transform == "noise" else activations * scores[:, :, None, None]
    ours, our_scores = DeviceTwin(tmp_path, trained.manifest.contract)(as_tensor(pictures))
    assert our_scores is not None
    assert np.abs(ours.numpy() - expected).max() < 1e-3
    assert np.abs(our_scores.numpy() - scores).max() < 1e-3


def test_who_searches_can_leave_a_value_that_is_cut() -> None:
    contract = Manifest.load(SHIPPED).contract
    deployed, searched = DeviceTwin(SHIPPED, contract), DeviceTwin(SHIPPED, contract, through_limits=True)
    pictures = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values, same = deployed(pictures)[0], searched(pictures)[0]
    assert torch.equal(values, same)
    cut = values == 0
    assert cut.any()
    (stuck,) = torch.autograd.grad(values[cut].sum(), pictures, retain_graph=True)
    (free,) = torch.autograd.grad(same[cut].sum(), pictures)
    assert stuck.abs().max() == 0
    assert free.abs().max() > 0
