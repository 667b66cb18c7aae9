"""What every defence is: networks, one loss per batch, and nothing else. The loop is ``training.train``'s."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcp_sdk.errors import ConfigError

from ..config import Recipe
from ..networks import (
    ClientNetwork,
    Float32,
    LightPruner,
    Neck,
    RandomPruner,
    RemainingLayers,
    SplitModel,
    output_shape,
)
from ..pruning import imbalance, straight_through_mask
from .noise import NoisyRounding, Rounding

__all__ = ["Batch", "Defense", "Losses", "Sent", "frozen", "inner", "need", "reverse_gradient", "send"]

Kind = TypeVar("Kind", bound=nn.Module)
Settings = TypeVar("Settings")


class Batch(NamedTuple):
    """Pictures with their labels."""

    pictures: Tensor
    """uint8 ``(N, 3, S, S)``, RGB."""
    task: Tensor
    """int64 ``(N,)``."""
    sensitive: Tensor
    """int64 ``(N,)``."""


class Sent(NamedTuple):
    """What becomes of a batch on the device, still differentiable."""

    activations: Tensor
    """z, the client network's output, ``(N, C, h, w)``."""
    scores: Tensor | None
    """The pruner's, ``(N, C)``."""
    mask: Tensor | None
    """b, binary ``(N, C, 1, 1)``, with the gradient of the soft mask."""
    transformed: Tensor
    """z after noise or boost; z itself where there is neither."""
    payload: Tensor
    """What the server unpacks: ``transformed`` where kept, else 0."""


class Losses(NamedTuple):
    """What one batch yields. ``sum`` is what to back-propagate."""

    task: Tensor
    """Cross-entropy of the task head."""
    defense: Tensor | None = None
    """Everything else that someone minimises: adversaries, penalties."""

    @property
    def sum(self) -> Tensor:
        return self.task if self.defense is None else self.task + self.defense


class Defense:
    """Plain training for the task: of an unpruned network, or with channels drawn at random.

    Rivals override what they do differently.

    Args:
        recipe: What to train.
        task_classes: Number of task classes.
        sensitive_classes: Number of sensitive classes.
    """

    def __init__(self, recipe: Recipe, task_classes: int, sensitive_classes: int) -> None:
        self.recipe = recipe
        self.task_classes = task_classes
        self.sensitive_classes = sensitive_classes

    def settings(self, kind: type[Settings]) -> Settings:
        """Return the recipe's section ``defense``, which is of this kind: recipes are checked when they are read."""
        assert isinstance(self.recipe.defense, kind)
        return self.recipe.defense

    def build(self) -> SplitModel:
        """Freshly initialised networks."""
        network = self.recipe.network
        client: nn.Module = ClientNetwork(network.arch, network.split, self.recipe.data.mean, self.recipe.data.std)
        shape = output_shape(client, self.recipe.data.size_px)
        transform = None
        if (neck := network.bottleneck) is not None:
            client = nn.Sequential(client, Neck(shape, neck))
            shape = (neck.channels, neck.side, neck.side)
            transform = NoisyRounding(shape, neck.deviation, neck.bits) if neck.noise else Rounding(neck.bits)
        return SplitModel(
            client=client,
            head=self.remaining_layers(self.task_classes),
            activations_shape=shape,
            pruner=Float32(RandomPruner(shape[0])) if self.recipe.pruning.rule == "random" else None,
            transform=transform,
        )

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        """Compute what this batch costs.

        Args:
            model: The networks, in training mode.
            batch: Pictures and labels.
            progress: Share of all steps that are done, 0 to below 1.
        """
        del progress
        return Losses(self.task_loss(model, self.send(model, batch.pictures), batch))

    def after_epoch(self, model: SplitModel) -> None:
        """Bring buffers up to date. Nothing to do here."""

    def kept(self, model: SplitModel) -> int:
        """k, channels that leave the device."""
        return self.recipe.pruning.kept(model.activations_shape[0])

    def send(self, model: SplitModel, pictures: Tensor) -> Sent:
        """:func:`send` with this recipe's k and temperature."""
        return send(model, pictures, self.kept(model), self.recipe.pruning.temperature)

    def task_loss(self, model: SplitModel, sent: Sent, batch: Batch) -> Tensor:
        """Cross-entropy of the head's answer to the payload."""
        return F.cross_entropy(model.head(sent.payload), batch.task)

    def balance(self, sent: Sent) -> Tensor | float:
        """Weighted imbalance of the mask; 0 where the recipe asks for none."""
        weight = self.recipe.pruning.balance
        return 0.0 if sent.mask is None or not weight else weight * imbalance(sent.mask.flatten(1))

    def remaining_layers(self, outputs: int) -> RemainingLayers:
        """All that follows what is sent, with this many logits."""
        return RemainingLayers.of(self.recipe.network, outputs)

    def new_pruner(self, channels: int) -> Float32:
        """Return the network that scores channels of this very picture, as ``pruning.pruner`` says."""
        light = self.recipe.pruning.pruner == "light"
        return Float32(LightPruner(channels) if light else self.remaining_layers(channels))

    def new_adversary(self) -> RemainingLayers:
        """Return the paper's: all that follows what is sent, with one logit per sensitive class."""
        return self.remaining_layers(self.sensitive_classes)


def send(model: SplitModel, pictures: Tensor, kept: int, temperature: float = 1.0) -> Sent:
    """Take pictures through the device's networks. The pruner reads ``z.detach()``.

    Args:
        model: The networks.
        pictures: uint8 ``(N, 3, S, S)``.
        kept: k.
        temperature: T of the soft mask.
    """
    activations = model.client(pictures)
    scores = None if model.pruner is None else model.pruner(activations.detach())
    transformed = activations if model.transform is None else model.transform(activations, scores)
    if scores is None:
        return Sent(activations, None, None, transformed, transformed)
    mask = straight_through_mask(scores, kept, temperature)[:, :, None, None]
    return Sent(activations, scores, mask, transformed, transformed * mask)


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reverse_gradient(value: Tensor, weight: float) -> Tensor:
    """Identity forward; backward the gradient times ``-weight`` (Ganin and Lempitsky 2015)."""
    reversed_value: Tensor = _ReverseGradient.apply(value, weight)
    return reversed_value


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through these networks and leave their weights alone."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def inner(network: nn.Module | None, kind: type[Kind]) -> Kind:
    """Find the network of this kind inside the wrappers that put it on its device."""
    return next(module for module in need(network, kind.__name__).modules() if isinstance(module, kind))


def need(network: nn.Module | None, name: str) -> nn.Module:
    """Narrow an optional network to one that this defence built.

    Raises:
        ConfigError: It is absent: the model was built by another defence.
    """
    if network is None:
        raise ConfigError(f"expected a model with a {name}, got one without: it was built for another defence")
    return network
