"""The settings of each rival of the paper, and of ours: the section ``defense`` of a recipe.

Where a default comes from stands with it: *the paper* is the rival's own; *the benchmark* is what the authors of our
paper set for it in theirs (github.com/aidecentralized/InferenceBenchmark, ``src/configs``); everything else is OURS,
chosen once, before any row was measured, and not tuned. Both train ten times longer than our rows.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from dcp_sdk.contract import Frozen

__all__ = [
    "DeepObfuscator",
    "DefenseConfig",
    "FeatureBoosting",
    "Fraction",
    "GaussianNoise",
    "GradualPruning",
    "LatentPruning",
    "MaximumEntropy",
    "NoPeek",
    "Osia",
    "Section",
    "Shredder",
]

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(Frozen):
    """Base of each section of a recipe: its numbers are numbers."""

    model_config = ConfigDict(allow_inf_nan=False)


class NoPeek(Section):
    """Distance correlation between picture and payload as a penalty."""

    name: Literal["nopeek"]
    weight: Annotated[float, Field(gt=0)] = 0.5
    """Of the distance correlation, beside a task loss of weight 1. OURS; the benchmark: 0.9 to 0.1, so 9 here."""


class Shredder(Section):
    """Additive noise whose distribution is learnt after the network is finished, and sampled on the device."""

    name: Literal["shredder"]
    tensors: Annotated[int, Field(ge=1, le=64)] = 8
    """Noise tensors that are learnt; the device draws one of their distributions for each picture. OURS."""
    weight: Annotated[float, Field(gt=0)] = 0.05
    """λ, reward for the noise's mean magnitude. OURS: the paper's belongs to a sum over one network's values."""
    spread: Annotated[float, Field(gt=0)] = 1.5
    """Scale of the Laplace distribution that the tensors start from, in standard deviations of each channel. OURS; the
    benchmark has 1.2, in plain units."""
    pretraining: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Share of the steps that train the network, before it is frozen. OURS: the paper starts from a finished one."""


class DeepObfuscator(Section):
    """The client network against two adversaries: one names the attribute, one draws the picture."""

    name: Literal["deep_obfuscator"]
    attribute_weight: Annotated[float, Field(ge=0)] = 0.5
    """λ of what names the attribute. OURS, equal to the other."""
    reconstruction_weight: Annotated[float, Field(ge=0)] = 0.5
    """λ of what draws the picture. OURS; the benchmark has 0.5 to 0.5, so 1 here, and no other adversary."""


class Osia(Section):
    """Fewer dimensions, Siamese fine-tuning, Gaussian noise."""

    name: Literal["osia"]
    dimensions: Annotated[int, Field(ge=1)] = 8
    """Channels that the features are projected to. OURS."""
    contrastive_weight: Annotated[float, Field(ge=0)] = 1.0
    """Beside a task loss of weight 1. OURS; the benchmark has 0.9 to 0.1, so 9 here."""
    margin: Annotated[float, Field(gt=0)] = 1.0
    """Least distance of two pictures of different task classes; features have length 1. OURS; the benchmark has 2, and
    features of any length."""
    noise: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation of the noise, in standard deviations of each channel. OURS."""
    pretraining: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the steps before the Siamese fine-tuning. OURS: the paper fine-tunes a finished network."""


class FeatureBoosting(Section):
    """Feature boosting and suppression: the most salient channels stay, multiplied by their saliency."""

    name: Literal["feature_boosting"]
    sparsity: Annotated[float, Field(ge=0)] = 1e-8
    """Weight of the sum of all saliencies: λ of the paper."""


class GradualPruning(Section):
    """Channels that matter least for the task are removed one after the other, for all pictures alike."""

    name: Literal["gradual_pruning"]
    done: Annotated[float, Field(gt=0, le=1)] = 0.67
    """Share of the steps after which only k channels are left. OURS."""


class GaussianNoise(Section):
    """Gaussian noise on the payload, in training and on the wire."""

    name: Literal["gaussian_noise"]
    deviation: Annotated[float, Field(gt=0)] = 1.0
    """In standard deviations of each channel. OURS: a yardstick."""


class MaximumEntropy(Section):
    """The client network maximises the entropy of the adversary's answer."""

    name: Literal["maximum_entropy"]
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Of the entropy, beside a task loss of weight 1. OURS."""


class LatentPruning(Section):
    """Few values on the wire, and a client network that unlearns what several adversaries at once read from them."""

    name: Literal["latent_pruning"]
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Of ``objective``."""
    onset: Fraction = 0.0
    """Share of the steps in which ``weight`` grows from nought: a network that is opposed from the start may learn
    nothing (Ganin et al. 2016 let theirs grow, too)."""
    adversaries: Annotated[int, Field(ge=1, le=16)] = 4
    """Of different width and depth; after each epoch one of them starts anew."""
    memory: Annotated[int, Field(ge=1)] = 4096
    """Last values that adversaries learn from, beside those of the batch: they must not forget."""
    dependence: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the distance correlation of values and attribute within each task class."""
    objective: Literal["prior", "club"] = "prior"
    """What the client network minimises against adversaries. ``prior``: their divergence from what the task alone would
    tell; ``club``: the bound of mutual information that they give (Cheng et al. 2020), within each task class."""
    compression: Annotated[float, Field(ge=0)] = 0.0
    """Weight of all that values tell beyond the task, whatever it is about: the conditional entropy bottleneck (Fischer
    2020), in nats. Needs noise."""


DefenseConfig = Annotated[
    NoPeek
    | Shredder
    | DeepObfuscator
    | Osia
    | FeatureBoosting
    | GradualPruning
    | GaussianNoise
    | MaximumEntropy
    | LatentPruning,
    Field(discriminator="name"),
]
