"""The networks: client network, pruner, task head, adversaries. Most are pieces of torchvision's ResNets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torchvision import models

from dcp_sdk.errors import ConfigError

from .config import Arch, BottleneckConfig, NetworkConfig
from .small_maps import for_small_maps

__all__ = [
    "ClientNetwork",
    "Float32",
    "LearntPruner",
    "LightPruner",
    "Neck",
    "RandomPruner",
    "Randomised",
    "RemainingLayers",
    "SaliencyPruner",
    "SplitModel",
    "StaticPruner",
    "output_shape",
]


def _children(arch: Arch) -> list[nn.Module]:
    """conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4, avgpool, fc; freshly initialised."""
    return list(for_small_maps(getattr(models, arch)(weights=None)).children())


def _width(layers: list[nn.Module]) -> int:
    """Channels that come out of the first layers of a ResNet; out of none of them come the picture's three."""
    normalisations = (layer for block in layers for layer in block.modules() if isinstance(layer, nn.BatchNorm2d))
    return next((layer.num_features for layer in reversed(list(normalisations))), 3)


class ClientNetwork(nn.Sequential):
    """g(θ2; x): normalisation and the first ``split`` children of the ResNet; runs on the device.

    Input: uint8 ``(N, 3, S, S)``, RGB. Output: float ``(N, C, h, w)``, not negative (the split follows a ReLU).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, arch: Arch, split: int, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> None:
        super().__init__(*_children(arch)[:split])
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        normalised = (pictures.float() / 255 - self.mean) / self.std
        activations: Tensor = super().forward(normalised)  # type: ignore[no-untyped-call, unused-ignore]
        return activations


@torch.no_grad()
def output_shape(client: nn.Module, size_px: int) -> tuple[int, int, int]:
    """``(C, h, w)`` that a client network makes of pictures of ``size_px``."""
    was_training = client.training
    channels, height, width = client.eval()(torch.zeros(1, 3, size_px, size_px, dtype=torch.uint8)).shape[1:]
    client.train(was_training)
    return channels, height, width


class Neck(nn.Sequential):
    """Few values out of many maps: stride-2 convolutions, averages, one linear map, standardised and cut to 0..1.

    Input: float ``(N, *shape)``. Output: float ``(N, bottleneck.channels, side, side)`` in 0..1; a value's mean
    lies at 0.5, and ``reach`` of its standard deviations at 0 and 1.

    Raises:
        ConfigError: The maps cannot be cut into ``side x side`` equal parts.
    """

    def __init__(self, shape: tuple[int, int, int], bottleneck: BottleneckConfig) -> None:
        channels, height, width = shape
        layers: list[nn.Module] = []
        for _ in range(bottleneck.convolutions):
            layers += [nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels)]
            layers += [nn.ReLU()]
            height, width = -(-height // 2), -(-width // 2)
        if height % bottleneck.side or width % bottleneck.side:
            raise ConfigError(
                f"network.bottleneck: maps of {height} x {width} cannot be averaged to {bottleneck.side} values a side"
            )
        super().__init__(
            *layers,
            nn.AvgPool2d((height // bottleneck.side, width // bottleneck.side)),
            nn.Conv2d(channels, bottleneck.channels, 1, bias=False),
            nn.BatchNorm2d(bottleneck.channels, affine=False),
        )
        self.reach = bottleneck.reach

    def forward(self, activations: Tensor) -> Tensor:
        standardised: Tensor = super().forward(activations)  # type: ignore[no-untyped-call, unused-ignore]
        return torch.clamp(standardised / (2 * self.reach) + 0.5, 0, 1)


class RemainingLayers(nn.Sequential):
    """All that follows the split, with ``outputs`` logits: the task head, the adversary and the paper's pruner.

    Input: float ``(N, C, h, w)``; what comes out of a neck is spread over all C channels first, and over as many places
    as the remaining strides need. Output: float ``(N, outputs)``.
    """

    def __init__(self, arch: Arch, split: int, outputs: int, neck: BottleneckConfig | None = None) -> None:
        before, after = _children(arch)[:split], _children(arch)[split:]
        *body, old_classifier = after
        assert isinstance(old_classifier, nn.Linear)
        spread: list[nn.Module] = []
        if neck is not None:
            channels = _width(before)
            spread = [nn.Conv2d(neck.channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            # In bfloat16 on the CPU, the gradient of a 3x3 convolution of stride 2 on ONE value reads memory that
            # nobody wrote (torch 2.14, oneDNN): no stride may meet a map of 1 x 1.
            if neck.side < (places := 2 ** max(0, 8 - max(split, 5) + max(0, 4 - split))):
                spread.append(nn.Upsample(size=(places, places)))
        super().__init__(*spread, *body, nn.Flatten(), nn.Linear(old_classifier.in_features, outputs))
        self.inputs = _width(before) if neck is None else neck.channels
        """Channels that it takes."""

    @classmethod
    def of(cls, network: NetworkConfig, outputs: int) -> Self:
        """All that follows what this network's device sends."""
        return cls(network.arch, network.split, outputs, network.bottleneck)


class LightPruner(nn.Module):
    """Filter generating network that costs next to nothing: mean and maximum of each channel, then two linear layers.

    Averages over all positions also damp the numerical noise between runtimes, so that scores flip no mask bit.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * channels, 64), nn.ReLU(), nn.Linear(64, channels))

    def forward(self, activations: Tensor) -> Tensor:
        """``(N, C, h, w) -> (N, C)`` scores."""
        pooled = torch.cat([activations.mean(dim=(2, 3)), activations.amax(dim=(2, 3))], dim=1)
        scores: Tensor = self.layers(pooled)
        return scores


class SaliencyPruner(nn.Module):
    """Scores that are saliencies: ``ReLU(W mean|z| + b)``, b = 1 at first (Gao et al. 2019, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, channels)
        nn.init.ones_(self.layer.bias)

    def forward(self, activations: Tensor) -> Tensor:
        """``(N, C, h, w) -> (N, C)`` scores, not negative."""
        return torch.relu(self.layer(activations.abs().mean(dim=(2, 3))))


class LearntPruner(nn.Module):
    """The same scores for every picture, learnt like any weight through the soft mask, or left as they were drawn."""

    def __init__(self, channels: int, *, learnt: bool = True) -> None:
        super().__init__()
        self.scores = nn.Parameter(0.1 * torch.randn(channels), requires_grad=learnt)

    def forward(self, activations: Tensor) -> Tensor:
        """``(N, C, h, w) -> (N, C)`` scores."""
        return self.scores.expand(activations.shape[0], -1)


class StaticPruner(nn.Module):
    """The same scores for every picture. Whoever trains writes them."""

    relevance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("relevance", torch.ones(channels))

    def forward(self, activations: Tensor) -> Tensor:
        """``(N, C, h, w) -> (N, C)`` scores."""
        return self.relevance.expand(activations.shape[0], -1)


class Randomised(nn.Module):
    """What needs random numbers. It draws them while it trains; on the device they come from outside the graph.

    Args:
        uniforms: Shape of the numbers that one picture takes.
    """

    def __init__(self, uniforms: tuple[int, ...]) -> None:
        super().__init__()
        self.uniforms = uniforms

    def uniform(self, given: Tensor | None, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), float32 ``(N, *uniforms)``: those given, or fresh ones for ``like (N, …)``."""
        if given is not None:
            return given
        return torch.rand(like.shape[0], *self.uniforms, device=like.device)


class RandomPruner(Randomised):
    """Uniform scores, drawn anew for every picture: the paper's random baseline."""

    def __init__(self, channels: int) -> None:
        super().__init__((channels,))

    def forward(self, activations: Tensor, uniform: Tensor | None = None) -> Tensor:
        """``(N, C, h, w) -> (N, C)`` scores."""
        return self.uniform(uniform, activations)


class Float32(nn.Module):
    """Runs a network in float32 whatever precision surrounds it: bf16 noise in a score would flip channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, value: Tensor) -> Tensor:
        with torch.autocast(value.device.type, enabled=False):
            result: Tensor = self.network(value.float())
            return result


@dataclass(frozen=True)
class SplitModel:
    """The networks of one training; what a defence does not need is None."""

    client: nn.Module
    """:class:`ClientNetwork`, and what follows it on the device before channels are chosen."""
    head: nn.Module
    """:class:`RemainingLayers` with one logit per task class."""
    activations_shape: tuple[int, int, int]
    """``(C, h, w)`` of the client network's output."""
    pruner: nn.Module | None = None
    """:class:`Float32` around the network that gives scores ``(N, C)``."""
    transform: nn.Module | None = None
    """``(activations (N, C, h, w), scores (N, C) or None)`` -> what is sent of them, the same shape: noise, a boost.
    One that is :class:`Randomised` takes its numbers as a third argument."""
    adversary: nn.Module | None = None
    """:class:`RemainingLayers` with one logit per sensitive class."""
    reconstructor: nn.Module | None = None
    """An adversary that draws the picture."""

    def networks(self) -> dict[str, nn.Module]:
        """Name the networks that exist."""
        named = {
            "client": self.client,
            "pruner": self.pruner,
            "transform": self.transform,
            "head": self.head,
            "adversary": self.adversary,
            "reconstructor": self.reconstructor,
        }
        return {name: module for name, module in named.items() if module is not None}
