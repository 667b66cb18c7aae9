"""The torch twin computes what the deployed graph computes, and lets a gradient reach the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dcp_sdk.contract import Manifest
from export.parity import open_graph
from tests.tiny import ROOT
from tests.trained import Trained
from training.attacks.device_twin import DeviceTwin
from training.attacks.reconstruction import as_tensor


def inside(bundle: Path, pictures: np.ndarray, names: list[str]) -> list[np.ndarray]:
    graph = onnx.load(bundle / "device.onnx")
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values: list[np.ndarray] = open_graph(graph).run(names, {"image": pictures})
    return values


def pictures_for(manifest: Manifest) -> np.ndarray:
    size_px = manifest.contract.preprocessing.size_px
    return np.random.default_rng(0).integers(0, 256, (3, size_px, size_px, 3), np.uint8)


@pytest.mark.parametrize("which", ["shipped", "trained"])
def test_activations_and_scores_are_those_of_the_graph(which: str, trained: Trained) -> None:
    bundle = ROOT / "bundles" / "gender_112" if which == "shipped" else trained.bundle
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
