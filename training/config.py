"""A recipe: everything that decides a training result, in one frozen, documented object read from one YAML file."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from dcp_sdk.contract import ClassNames, ImagePreprocessing, Name, Positive, PrunerKind, Rule, kept_channels
from dcp_sdk.errors import ConfigError

from .defense_config import (
    DeepObfuscator,
    DefenseConfig,
    FeatureBoosting,
    Fraction,
    GaussianNoise,
    GradualPruning,
    LatentPruning,
    Osia,
    Section,
    Shredder,
)

RECIPES = Path(__file__).parent / "recipes"
Arch = Literal["resnet18", "resnet34", "resnet50"]


class AttributeConfig(Section):
    """Which column of the labels is meant."""

    name: Name
    """Column of the CSV, or attribute of the data set."""
    labels: ClassNames | None = None
    """Class names in the order of their numbers; None: the sorted values found in the training labels."""
    edges: tuple[float, ...] = ()
    """Where the column holds numbers: they are cut into groups at these values, ascending."""

    @model_validator(mode="after")
    def _edges_ascend(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges must ascend: {self.edges}")
        if self.edges and self.labels:
            raise ValueError("edges name their own groups: leave labels out")
        return self

    def group(self, value: str) -> str:
        """Return the label that a value of the column stands for.

        Raises:
            ValueError: It should be a number and is none.
        """
        if not self.edges:
            return value
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{value!r}, which no group holds")
        place = bisect_right(self.edges, number)
        if place == 0:
            return f"under {self.edges[0]:g}"
        if place == len(self.edges):
            return f"{self.edges[-1]:g} and over"
        return f"{self.edges[place - 1]:g} to under {self.edges[place]:g}"


class DataConfig(Section):
    """Where pictures and labels come from. The folder itself is a command-line argument, never part of a recipe."""

    kind: Literal["fairface", "csv", "celeba", "cifar10", "generated"]
    """``fairface``: ``*_label_train.csv`` and ``*_label_val.csv`` in the folder (FairFace's own layout); ``csv``: any
    CSV with a column of file names; ``celeba``, ``cifar10``: torchvision's classes; ``generated``: drawn shapes, for
    tests."""
    task: AttributeConfig
    sensitive: AttributeConfig
    others: tuple[AttributeConfig, ...] = ()
    """Attributes that nobody asked to hide; an audit reports what is read of them, too."""
    train_csv: str = "train.csv"
    """``csv`` only: labels of the training pictures, relative to the folder."""
    val_csv: str = "val.csv"
    """``csv`` only: labels of the validation pictures; may be the same file as ``train_csv`` with ``split_column``."""
    split_column: str | None = None
    """``csv`` only: column that says which split a row belongs to."""
    train_split: str = "train"
    """``csv`` only: value of ``split_column`` for training rows."""
    val_split: str = "val"
    """``csv`` only: value of ``split_column`` for validation rows."""
    file_column: str = "file"
    """``csv`` and ``fairface``: column with the picture's path, relative to the folder."""
    size_px: Annotated[int, Field(ge=16, le=1024)]
    """Side of the square picture that the client network sees."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Per colour, on pixels scaled to 0..1."""
    std: tuple[Positive, Positive, Positive] = (0.25, 0.25, 0.25)
    """Per colour, on pixels scaled to 0..1."""
    shift_px: Annotated[int, Field(ge=0)] = 0
    """Augmentation: random shift by up to this many pixels, edges repeated."""
    flip: bool = True
    """Augmentation: mirror every second picture."""
    generated_pictures: Annotated[int, Field(ge=20)] = 512
    """``generated`` only: size of the training split; validation has a quarter."""

    @model_validator(mode="after")
    def _something_to_hide(self) -> Self:
        if self.task == self.sensitive:
            raise ValueError(f"task and sensitive are both {self.task.name!r}: an answer cannot be given and hidden")
        return self

    @property
    def preprocessing(self) -> ImagePreprocessing:
        """The same facts as the contract states them for the device."""
        return ImagePreprocessing(size_px=self.size_px, mean=self.mean, std=self.std)


class BottleneckConfig(Section):
    """A narrow neck behind the split, part of the client network: few values, each within 0..1, few bits, noise."""

    channels: Annotated[int, Field(ge=1)]
    """C of what channels are then chosen from."""
    side: Annotated[int, Field(ge=1)] = 1
    """Maps are averaged to ``side x side`` values; must divide their own."""
    convolutions: Annotated[int, Field(ge=0, le=4)] = 0
    """3x3 convolutions of stride 2 before that, so that what is averaged has been understood."""
    reach: Annotated[float, Field(gt=0)] = 2.0
    """Standard deviations of a value, both ways from its mean, that 0..1 stands for; what lies beyond saturates."""
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the Gaussian noise on each value, in the value's own, in training and on the wire."""
    bits: Literal[1, 2, 4, 8] = 8
    """Bits of a value on the wire."""

    @property
    def deviation(self) -> float:
        """Of the noise, on the scale of 0..1."""
        return self.noise / (2 * self.reach)


class NetworkConfig(Section):
    """Architecture and the place where it is cut."""

    arch: Arch = "resnet18"
    split: Annotated[int, Field(ge=3, le=8)] = 6
    """The client network is the first ``split`` children of torchvision's ResNet: 3 after the first ReLU, 4 after
    max-pooling, 5 to 8 after layer1 to layer4. Below 3 the output is not post-ReLU, which the unsigned quantiser
    needs."""
    bottleneck: BottleneckConfig | None = None
    """None: all channels of the split, at its resolution, calibrated to 8 bits."""

    @property
    def bits(self) -> int:
        """Of a value on the wire."""
        return 8 if self.bottleneck is None else self.bottleneck.bits


class PruningConfig(Section):
    """What is removed and who decides."""

    rule: Rule = "dynamic"
    """``static``: the same channels for every picture, learnt with the rest."""
    ratio: Fraction = 0.9
    """r, share of channels that is removed. ``none`` needs 0."""
    pruner: PrunerKind = "light"
    """``paper``: the remaining ResNet layers; ``light``: pooled channels through two small linear layers; ``saliency``:
    one linear layer, for feature boosting. Only for ``dynamic``."""
    learnt: bool = True
    """``static`` under latent pruning: whether the channels are learnt, or drawn once and kept."""
    temperature: Annotated[float, Field(gt=0)] = 0.3
    """T of the soft mask ``sigmoid((score - threshold) / T)`` that carries the straight-through gradient."""
    adversary_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the adversary's loss in the pruner's objective."""
    balance: Annotated[float, Field(ge=0)] = 0.0
    """Weight of how unevenly a batch uses the channels: keeps a ``dynamic`` choice from becoming the same for every
    picture. Not the paper's."""

    @model_validator(mode="after")
    def _none_keeps_all(self) -> Self:
        if (self.rule == "none") != (self.ratio == 0):
            raise ValueError("rule 'none' goes with ratio 0, the other rules with a ratio above 0")
        if self.balance and self.rule != "dynamic":
            raise ValueError(f"pruning.balance goes with rule 'dynamic', not {self.rule!r}: nobody else chooses")
        return self

    def kept(self, channels: int) -> int:
        """Channels that leave the device, out of ``channels``."""
        return kept_channels(channels, self.ratio)


class OptimConfig(Section):
    """Optimiser and schedule, the same for all networks."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Pictures per step over all devices together."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of Adam."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled (AdamW)."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """``cosine``: linear warm-up, then half a cosine down to zero."""
    warmup: Fraction = 0.1
    """Share of all steps spent warming up; ``cosine`` only."""


class Recipe(Section):
    """One reported result."""

    name: Name
    data: DataConfig
    network: NetworkConfig = NetworkConfig()
    pruning: PruningConfig = PruningConfig()
    defense: DefenseConfig | None = None
    """A rival of the paper; None: the paper's method where the rule is ``dynamic``, plain training elsewhere."""
    optim: OptimConfig
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning Fabric's precision. The pruner's scores are float32 whatever it says."""

    @model_validator(mode="after")
    def _defense_fits_rule(self) -> Self:
        saliency = isinstance(self.defense, FeatureBoosting)
        needed = "dynamic" if saliency else "static" if isinstance(self.defense, GradualPruning) else "none"
        neck = self.network.bottleneck
        if isinstance(self.defense, Shredder | Osia | FeatureBoosting | GaussianNoise) and neck is not None:
            raise ValueError(f"network.bottleneck and defense {self.defense.name!r} both decide what values are sent")
        if isinstance(self.defense, DeepObfuscator) and neck is not None:
            raise ValueError("defense 'deep_obfuscator' draws pictures from maps, and network.bottleneck leaves none")
        weight = PruningConfig.model_fields["adversary_weight"].default
        if self.defense is not None and self.pruning.adversary_weight != weight:
            raise ValueError(
                f"pruning.adversary_weight is the paper's, defense {self.defense.name!r} has its own settings"
            )
        any_rule = isinstance(self.defense, LatentPruning)
        if any_rule and neck is None:
            raise ValueError("defense 'latent_pruning' needs network.bottleneck, which says what the wire carries")
        if isinstance(self.defense, LatentPruning) and self.defense.compression and not (neck and neck.noise):
            raise ValueError("defense.compression needs network.bottleneck.noise: without it values tell without limit")
        if self.defense is not None and not any_rule and self.pruning.rule != needed:
            raise ValueError(
                f"defense {self.defense.name!r} goes with pruning.rule {needed!r}, not {self.pruning.rule!r}"
            )
        if self.defense is None and self.pruning.rule == "static":
            raise ValueError("pruning.rule 'static' needs defense 'gradual_pruning', which says what stays")
        if self.pruning.balance and saliency:
            raise ValueError("pruning.balance and defense 'feature_boosting' both decide what the pruner learns")
        if self.pruning.rule == "dynamic" and saliency != (self.pruning.pruner == "saliency"):
            raise ValueError("pruner 'saliency' and defense 'feature_boosting' belong together")
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a YAML recipe; ``extends: FILE`` in it starts from another recipe beside it.

        Args:
            path: The YAML file, or the name of one in ``training/recipes``.
            overrides: ``section.key=value`` strings, applied last; values are YAML.

        Raises:
            ConfigError: The file is missing or something in it makes no sense.
        """
        path = Path(path)
        if not path.is_file() and (RECIPES / f"{path}.yaml").exists():
            path = RECIPES / f"{path}.yaml"
        raw = _read(path)
        for override in overrides:
            keys, separator, value = override.partition("=")
            if not separator:
                raise ConfigError(f"expected section.key=value, got {override!r}")
            section: Any = raw
            *parents, last = keys.split(".")
            for key in parents:
                section = section.setdefault(key, {}) if isinstance(section, dict) else None
            if not isinstance(section, dict):
                raise ConfigError(f"{override!r}: expected {'.'.join(parents)} to be a section, it is a setting")
            try:
                section[last] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ConfigError(f"{override!r}: expected a YAML value: {' '.join(str(error).split())}") from error
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "recipe"
            raise ConfigError(f"{path}: {where}: {first['msg']} ({error.error_count()} problem(s))") from error


def _read(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ConfigError(f"expected a YAML recipe at {path}: {error}. Recipes here: {known}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(raw).__name__}")
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: expected the name of a recipe beside it, got {parent!r}")
    children = (*children, path.resolve())
    base = path.parent / parent
    if base.resolve() in children:
        raise ConfigError(f"{path}: extends: {parent} extends this recipe itself. Leave one of the two out.")
    return _merged(_read(base, children), raw)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both_mappings = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], value) if both_mappings else value
    return merged
