"""The two halves as they are deployed: everything on the device in one module, everything on the server in another.

Written in torch so that training, export and parity test share one definition of each step; the mask comes from
``training.pruning``. Both are made for evaluation: batch normalisation is folded into the convolutions and their
weights are rounded to float16 (the precision in which they are stored), *before* anything is exported or compared.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from dcp_sdk.errors import ConfigError
from training.checkpoint import Checkpoint
from training.networks import Float32, Randomised
from training.pruning import kept_indices
from training.small_maps import with_plain_convolutions

__all__ = ["DeviceGraph", "HeadGraph", "as_stored", "halves", "pack", "quantise", "unpack"]


class DeviceGraph(nn.Module):
    """Normalise, client network, pruner, noise or boost, hard mask, pack, quantise: a picture's way on the device."""

    def __init__(
        self,
        client: nn.Module,
        pruner: nn.Module | None,
        transform: nn.Module | None,
        channels: int,
        kept: int,
        scale: float,
        bits: int = 8,
    ) -> None:
        super().__init__()
        self.client = client
        self.pruner = pruner
        self.transform = transform
        self.channels = channels
        self.kept = kept
        self.scale = scale
        self.bits = bits

    @property
    def uniforms(self) -> int:
        """Random numbers that one picture takes."""
        return sum(math.prod(part.uniforms) for part in self._randomised())

    def forward(self, image: Tensor, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute payload and, for parity and drawings only, what the payload was made from.

        Args:
            image: uint8 ``(N, S, S, 3)``, RGB.
            noise: float32 ``(N, uniforms)``, uniform in [0, 1), where something is random.

        Returns:
            channels: uint8 ``(N, k)``, ascending (uint16 where C > 256);
            features: uint8 ``(N, k, h, w)``, the kept channels in that order; ``(N, B)`` with fewer than 8 bits;
            activations: float32 ``(N, C, h, w)``; never an output of the exported graph;
            scores: float32 ``(N, C)``, where there is a pruner; never an output of the exported graph.
        """
        # In the order that torch expects: else pooling is exported by way of strides, with operators no device allows.
        activations = self.client(image.permute(0, 3, 1, 2).contiguous())
        numbers = self._numbers(noise)
        if self.pruner is None:
            channels, scores = self._all_channels(activations), None
        else:
            scores = self.pruner(activations, *numbers.get(self.pruner, ()))
            channels = kept_indices(scores, self.kept)
        sent = activations
        if self.transform is not None:
            sent = self.transform(activations, scores, *numbers.get(self.transform, ()))
        features = pack(quantise(gather_channels(sent, channels), self.scale, self.bits), self.bits)
        ids = channels.to(torch.uint8 if self.channels <= 256 else torch.uint16)
        extras = (activations,) if scores is None else (activations, scores)
        return ids, features, *extras

    def _randomised(self) -> list[Randomised]:
        return [part for part in (self.pruner, self.transform) if isinstance(part, Randomised)]

    def _numbers(self, noise: Tensor | None) -> dict[nn.Module, tuple[Tensor]]:
        """Give each part that is random its share of the numbers."""
        parts = self._randomised()
        if noise is None or not parts:
            return {}
        shares = torch.split(noise, [math.prod(part.uniforms) for part in parts], dim=1)
        return {part: (share.reshape(-1, *part.uniforms),) for part, share in zip(parts, shares, strict=True)}

    def _all_channels(self, activations: Tensor) -> Tensor:
        return torch.arange(self.kept, device=activations.device).expand(activations.shape[0], self.kept)


class HeadGraph(nn.Module):
    """Unpack, dequantise, scatter to all channels, the remaining layers, softmax: all that happens on the server."""

    def __init__(self, head: nn.Module, shape: tuple[int, int, int], kept: int, scale: float, bits: int = 8) -> None:
        super().__init__()
        self.head = head
        self.shape = shape
        self.kept = kept
        self.scale = scale
        self.bits = bits

    def forward(self, channels: Tensor, features: Tensor) -> Tensor:
        """``channels (N, k)`` and ``features`` as the device sends them -> probabilities float32 ``(N, classes)``.

        Channel numbers that cannot be (not ascending, beyond the last) give NaN, which no client takes for an answer.
        An operator that failed on them would fail the whole batch, other people's requests included.
        """
        values = unpack(features, self.bits, (self.kept, *self.shape[1:])) * self.scale
        ids = channels.long()
        index = ids.clamp(max=self.shape[0] - 1)[:, :, None, None].expand_as(values)
        dense = torch.zeros(values.shape[0], *self.shape, device=values.device).scatter(1, index, values)
        gaps = torch.cat([ids[:, 1:] - ids[:, :-1], self.shape[0] - ids[:, -1:]], dim=1)
        probabilities = torch.softmax(self.head(dense), dim=1)
        return torch.where(gaps.amin(dim=1, keepdim=True) > 0, probabilities, torch.nan)


def gather_channels(activations: Tensor, channels: Tensor) -> Tensor:
    """``activations (N, C, h, w)``, ``channels (N, k)`` -> ``(N, k, h, w)``. What is not gathered is gone."""
    index = channels.long()[:, :, None, None].expand(-1, -1, *activations.shape[2:])
    return activations.gather(1, index)


def quantise(activations: Tensor, scale: float, bits: int = 8) -> Tensor:
    """Round to whole steps of ``scale``, saturating at the highest of ``2^bits``: float32, the same shape."""
    return torch.clamp(torch.round(activations / scale), 0, 2**bits - 1)


def pack(steps: Tensor, bits: int) -> Tensor:
    """Put whole numbers below ``2^bits`` into bytes, the first one in the lowest bits.

    Arithmetic in float32, exact below 2^24: shifts of bytes are not known to every runtime.

    Args:
        steps: float32 ``(N, …)``.
        bits: 1, 2, 4 or 8.

    Returns:
        uint8: of the same shape for 8 bits, else ``(N, B)``.
    """
    if bits == 8:
        return steps.to(torch.uint8)
    flat, slots = steps.flatten(1), 8 // bits
    padded = nn.functional.pad(flat, (0, -flat.shape[1] % slots))
    return (padded.reshape(-1, padded.shape[1] // slots, slots) * _weights(bits)).sum(2).to(torch.uint8)


def unpack(features: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Undo :func:`pack`: float32 ``(N, *shape)``."""
    if bits == 8:
        return features.float()
    shifted = torch.floor(features.float()[:, :, None] / _weights(bits))
    values: Tensor = shifted - 2**bits * torch.floor(shifted / 2**bits)
    return values.flatten(1)[:, : math.prod(shape)].reshape(-1, *shape)


def _weights(bits: int) -> Tensor:
    return torch.tensor([2.0 ** (bits * slot) for slot in range(8 // bits)])


def halves(checkpoint: Checkpoint, bits: int | None = None) -> tuple[DeviceGraph, HeadGraph]:
    """Device and head module of a checkpoint, on the CPU, in evaluation mode, weights as they will be stored.

    Args:
        checkpoint: Where the weights and the quantiser's step come from.
        bits: Of a value on the wire: 1, 2, 4 or 8; the highest step stands for the same activation. None takes as many
            as it was trained with.

    Raises:
        ConfigError: These are not such bits, or more than it was trained with.
    """
    model = checkpoint.model()
    trained = checkpoint.recipe.network.bits
    if bits is None:
        bits = trained
    if bits not in (1, 2, 4, 8) or bits > trained:
        raise ConfigError(
            f"bits: expected 1, 2, 4 or 8, and at most the {trained} that the checkpoint was trained with, got {bits}."
        )
    scale = checkpoint.quantisation_scale * ((2**trained - 1) // (2**bits - 1))  # always a whole number
    kept = checkpoint.recipe.pruning.kept(model.activations_shape[0])
    pruner = cast(Float32, model.pruner).network if model.pruner is not None else None
    device = DeviceGraph(
        as_stored(model.client),
        pruner if pruner is None else as_stored(pruner),
        model.transform,
        model.activations_shape[0],
        kept,
        scale,
        bits,
    )
    head = HeadGraph(as_stored(model.head), model.activations_shape, kept, scale, bits)
    return device.eval(), head.eval()


@torch.no_grad()
def as_stored(module: nn.Module) -> nn.Module:
    """Batch normalisation folded, weights of convolutions and linear layers rounded to float16 and cast up again."""
    folded = with_plain_convolutions(copy.deepcopy(module).eval())
    if _has_batch_norm(folded):
        folded = fuse(folded)
    for layer in folded.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.copy_(layer.weight.half().float())
    return folded


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
