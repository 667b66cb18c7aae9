"""OURS: pruning of the whole latent space, channels, places, values and bits, against adversaries that keep changing.

The paper ends with a wish: "beyond channel pruning … to a general latent space pruning". What the wire *can* carry is
limited first (``network.bottleneck``: few values, few bits, noise), so that no weight can smuggle. What it carries is
then spent on the task: with values v before noise, task label y, sensitive label s and adversaries a_i::

    task head       min  CE(head(wire(v)), y)
    adversary a_i   min  CE(a_i(v), s)
    client network  min  CE(head(wire(v)), y) + weight mean_i KL(p(s|y) || a_i(v)) + dependence dCor(v, s | y)
                         + compression bound of I(picture; wire(v) | y)

* Adversaries see v *before* noise: whoever averages many frames does, too.
* Their goal is p(s|y), not p(s): that the answer itself tells something about the attribute cannot be hidden from
  who gives it.
* They learn from a memory of past values, are of several shapes, and one after the other starts anew: the client
  network has no fixed opponent to evade.
* Distance correlation needs no adversary, so it cannot be fooled by making one fail; alone it is a weak critic.
* Compression needs no attribute either: it limits all that is told beyond the answer.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import defense_config
from ..networks import Float32, LearntPruner, SplitModel
from .base import Batch, Defense, Losses, frozen, inner

__all__ = ["AdversaryPanel", "LatentPruning", "conditional_dependence", "residual_information"]

_SHAPES = ((128,), (256, 256), (64, 64, 64), (512,))
"""Hidden layers of the adversaries, in turn."""
_LEARNED = 1024
"""Remembered values in one step of the adversaries."""
_FEWEST = 8
"""Pictures of a task class in a batch, below which its estimate says nothing."""


class AdversaryPanel(nn.Module):
    """Several perceptrons that name the attribute, and what they remember.

    Args:
        values: Numbers in one payload.
        task_classes: Number of task classes.
        sensitive_classes: Number of sensitive classes.
        settings: How many, and how much they remember.
    """

    remembered: Tensor
    labels: Tensor
    written: Tensor
    restarts: Tensor
    counts: Tensor

    def __init__(
        self, values: int, task_classes: int, sensitive_classes: int, settings: defense_config.LatentPruning
    ) -> None:
        super().__init__()
        self.adversaries = nn.ModuleList(
            _perceptron(values, _SHAPES[number % len(_SHAPES)], sensitive_classes)
            for number in range(settings.adversaries)
        )
        self.register_buffer("remembered", torch.zeros(settings.memory, values))
        self.register_buffer("labels", torch.zeros(settings.memory, dtype=torch.int64))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))
        self.register_buffer("restarts", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counts", torch.ones(task_classes, sensitive_classes))

    def forward(self, payload: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> what all of them together think, ``(N, sensitive classes)``."""
        return self.answers(payload.flatten(1)).softmax(2).mean(0)

    def answers(self, values: Tensor) -> Tensor:
        """``(N, values)`` -> logits of each, ``(adversaries, N, sensitive classes)``."""
        return torch.stack([adversary(values) for adversary in self.adversaries])

    @torch.no_grad()
    def remember(self, values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Keep a batch in place of the oldest, and return values and labels to learn from: it, and some older ones."""
        memory = len(self.labels)
        place = (self.written + torch.arange(len(values), device=values.device)) % memory
        self.remembered[place] = values.detach().float()
        self.labels[place] = batch.sensitive
        self.written += len(values)
        self.counts.index_put_((batch.task, batch.sensitive), torch.ones(len(values)).to(self.counts), accumulate=True)
        older = torch.randint(min(int(self.written), memory), (_LEARNED,), device=values.device)
        chosen = torch.cat([place, older])
        return self.remembered[chosen], self.labels[chosen]

    def expected(self, task: Tensor) -> Tensor:
        """p(s|y) of what was seen so far: ``(N,)`` -> ``(N, sensitive classes)``."""
        return F.normalize(self.counts, p=1, dim=1)[task]

    def restart_one(self) -> None:
        """Let the next one forget everything."""
        adversary = self.adversaries[int(self.restarts) % len(self.adversaries)]
        for layer in adversary.modules():
            if isinstance(layer, nn.Linear | nn.BatchNorm1d):
                layer.reset_parameters()
        self.restarts += 1


def _perceptron(values: int, hidden: tuple[int, ...], classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.BatchNorm1d(values)]
    width = values
    for following in hidden:
        layers += [nn.Linear(width, following), nn.BatchNorm1d(following), nn.ReLU()]
        width = following
    return nn.Sequential(*layers, nn.Linear(width, classes))


class LatentPruning(Defense):
    """Latent pruning, with channels chosen by any rule on top of it."""

    @property
    def _settings(self) -> defense_config.LatentPruning:
        return self.settings(defense_config.LatentPruning)

    def build(self) -> SplitModel:
        model = super().build()
        channels, height, width = model.activations_shape
        pruner: nn.Module | None = model.pruner
        if self.recipe.pruning.rule == "dynamic":
            pruner = self.new_pruner(channels)
        elif self.recipe.pruning.rule == "static":
            pruner = Float32(LearntPruner(channels, learnt=self.recipe.pruning.learnt))
        panel = AdversaryPanel(channels * height * width, self.task_classes, self.sensitive_classes, self._settings)
        return replace(model, pruner=pruner, adversary=Float32(panel))

    def losses(self, model: SplitModel, batch: Batch, progress: float) -> Losses:
        panel = inner(model.adversary, AdversaryPanel)
        sent = self.send(model, batch.pictures)
        clean = sent.activations if sent.mask is None else sent.activations * sent.mask
        values = clean.flatten(1).float()
        remembered, labels = panel.remember(values, batch)
        answers = panel.answers(remembered)
        learning = F.cross_entropy(answers.flatten(0, 1), labels.repeat(len(answers))) * len(answers)
        with frozen(panel):
            answers = panel.answers(values)
        expected = panel.expected(batch.task).expand_as(answers)
        beliefs = answers.log_softmax(2)
        if self._settings.objective == "club":
            hiding = (beliefs * (F.one_hot(batch.sensitive, self.sensitive_classes) - expected)).sum(2).mean()
        else:
            hiding = F.kl_div(beliefs, expected, reduction="none").sum(2).mean()
        grown = min(1.0, progress / self._settings.onset) if self._settings.onset else 1.0
        hiding = hiding * self._settings.weight * grown
        if self._settings.dependence:
            hiding = hiding + self._settings.dependence * conditional_dependence(values, batch)
        if self._settings.compression:
            assert self.recipe.network.bottleneck is not None
            deviation = self.recipe.network.bottleneck.deviation
            hiding = hiding + self._settings.compression * residual_information(values, batch.task, deviation)
        return Losses(self.task_loss(model, sent, batch), learning + hiding + self.balance(sent))

    def after_epoch(self, model: SplitModel) -> None:
        inner(model.adversary, AdversaryPanel).restart_one()


def conditional_dependence(values: Tensor, batch: Batch) -> Tensor:
    """Distance correlation of values and sensitive label within each task class, averaged by class size.

    Bias-corrected (Székely and Rizzo 2014): its expectation is 0 for independent ones, whatever the batch.

    Args:
        values: float32 ``(N, D)``.
        batch: With the labels.
    """
    total = values.new_zeros(())
    for label in torch.unique(batch.task):
        rows = batch.task == label
        if int(rows.sum()) < _FEWEST:
            continue
        ours = _u_centred(torch.cdist(values[rows], values[rows]))
        theirs = _u_centred((batch.sensitive[rows][:, None] != batch.sensitive[rows][None]).float())
        norm = torch.sqrt((ours * ours).sum() * (theirs * theirs).sum()).clamp_min(1e-9)
        total = total + rows.float().mean() * (ours * theirs).sum() / norm
    return total


def residual_information(values: Tensor, task: Tensor, deviation: float) -> Tensor:
    """Bound what noisy values tell of a picture beyond its task label, in nats: I(picture; payload | y).

    The mean over pictures of KL(N(v, deviation²) || N(mean v of its class, deviation²)); what is done to noisy values
    afterwards, saturation and rounding, tells no more.

    Args:
        values: Before noise, float32 ``(N, D)``.
        task: Labels ``(N,)``.
        deviation: Of the noise.
    """
    total = values.new_zeros(())
    for label in torch.unique(task):
        of_class = values[task == label]
        total = total + (of_class - of_class.mean(0)).square().sum()
    return total / len(values) / (2 * deviation**2)


def _u_centred(distances: Tensor) -> Tensor:
    count = len(distances)
    rows = distances.sum(1, keepdim=True) / (count - 2)
    centred = distances - rows - rows.T + distances.sum() / ((count - 1) * (count - 2))
    return centred - torch.diag_embed(centred.diagonal())
