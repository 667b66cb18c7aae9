"""The whole, unsplit network of a bundle's recipe as one graph. Fresh weights: time does not depend on them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dcp_sdk.bundles.manifest import Manifest
from export.fused import as_stored
from export.graphs import write_graph
from training.config import Recipe
from training.networks import ClientNetwork, RemainingLayers


class _Whole(nn.Module):
    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        arch, split = recipe.network.arch, recipe.network.split
        self.first = as_stored(ClientNetwork(arch, split, recipe.data.mean, recipe.data.std))
        self.rest = as_stored(RemainingLayers(arch, split, classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        # Contiguous: the exporter writes an average over maps in another order of memory as a gather.
        answer: torch.Tensor = torch.softmax(self.rest(self.first(image.permute(0, 3, 1, 2).contiguous())), 1)
        return answer


def whole_network(manifest: Manifest) -> nn.Module:
    """Build it: uint8 ``(N, S, S, 3)`` -> probabilities float32 ``(N, classes)``."""
    recipe = Recipe.model_validate(manifest.provenance.settings)
    return _Whole(recipe, len(manifest.contract.task.labels)).eval()


def write_whole_network(manifest: Manifest, path: Path) -> None:
    """Write it to ``path``, from ``image`` to ``probabilities``."""
    size_px = manifest.contract.preprocessing.size_px
    pictures = torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8)
    write_graph(whole_network(manifest), {"image": pictures}, ("probabilities",), (), path)
