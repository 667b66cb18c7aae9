"""``privacy_report.json``: what was measured of one bundle, for machines; the model card shows it to people."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from sklearn.metrics import roc_auc_score

from dcp_sdk.contract import PRIVACY_REPORT_FILE
from dcp_sdk.errors import ConfigError

__all__ = [
    "AttackResult",
    "GroupResult",
    "Interval",
    "LeakedPoint",
    "PrivacyReport",
    "SideChannel",
    "Utility",
    "balanced_accuracy",
    "hardware",
    "macro_auc",
    "percent",
]

Labels = npt.NDArray[np.int64]
_Z_95 = 1.96


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Interval(_Frozen):
    """A share with its 95 % interval, all in 0..1."""

    value: float
    low: float
    high: float


class GroupResult(_Frozen):
    """The task's balanced accuracy among the pictures of one group."""

    attribute: str
    label: str
    pictures: int
    balanced_accuracy: Interval


class Utility(_Frozen):
    """How well the bundle answers its task, on validation pictures."""

    pictures: int
    balanced_accuracy: Interval
    groups: tuple[GroupResult, ...]


class AttackResult(_Frozen):
    """One fresh adversary, trained on payloads after everything else was frozen."""

    name: str
    balanced_accuracy: Interval
    accuracy: Interval
    recalls: dict[str, float]
    """Share of each group that it recognises."""
    training_loss: float
    """Cross-entropy on its own training payloads, in nats."""
    prior_entropy: float
    """Cross-entropy of always answering the groups' frequencies. An adversary that stays there did not train."""
    minutes: float
    auc: float | None = None
    """Area under the ROC curve, one group against the rest, mean over the groups; chance is 0.5."""
    how: str = ""
    """Scaling and settings that the adversary chose on held-out leaked pairs."""
    seeds: dict[str, float] = {}
    """Balanced accuracy of each seed; the strongest is the one that is reported above."""

    @property
    def trained(self) -> bool:
        """Whether it learned anything at all; if not, it proves nothing."""
        return self.training_loss < 0.95 * self.prior_entropy


class SideChannel(_Frozen):
    """What something else than the values tells."""

    name: str
    balanced_accuracy: Interval
    chance: float

    @property
    def silent(self) -> bool:
        """Whether guessing lies within the interval."""
        return self.balanced_accuracy.low <= self.chance


class LeakedPoint(_Frozen):
    """The strongest family's result when fewer pairs leaked."""

    pairs: int
    attack: str
    balanced_accuracy: Interval


class PrivacyReport(_Frozen):
    """All that was measured of one bundle."""

    schema_version: Literal[1] = 1
    contract_digest: str
    """Of the bundle that was measured."""
    sensitive: str
    chance: float
    """Balanced accuracy of guessing."""
    majority: float
    """Accuracy of always answering the largest group of the test pictures."""
    leaked: int
    """Labelled payloads that the adversaries had."""
    tested: int
    """Payloads that they were judged on."""
    utility: Utility
    attacks: tuple[AttackResult, ...]
    side_channels: tuple[SideChannel, ...] = ()
    leaked_curve: tuple[LeakedPoint, ...] = ()
    """With fewer leaked pairs, ascending."""
    seed: int
    created: str
    hardware: str
    command: str

    @property
    def strongest(self) -> Interval | None:
        """The headline: the highest balanced accuracy of all adversaries that trained; None if none did."""
        trained = [attack.balanced_accuracy for attack in self.attacks if attack.trained]
        return max(trained, key=lambda interval: interval.value, default=None)

    @property
    def strongest_attack(self) -> str | None:
        """Name of the adversary behind :attr:`strongest`."""
        trained = [attack for attack in self.attacks if attack.trained]
        return max(trained, key=lambda a: a.balanced_accuracy.value).name if trained else None

    @property
    def protected(self) -> bool | None:
        """False where the strongest adversary beats the majority rate by more than 10 points; None if none trained."""
        strongest = self.strongest
        return None if strongest is None else strongest.value <= max(self.majority, self.chance) + 0.10

    @classmethod
    def load(cls, bundle: Path) -> PrivacyReport:
        """Read the report of the bundle folder ``bundle``.

        Raises:
            ConfigError: There is none, or it does not fit the schema.
        """
        path = bundle / PRIVACY_REPORT_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigError(f"expected a report of training.evaluate at {path}, got {error}") from error

    def save(self, bundle: Path) -> None:
        """Write ``privacy_report.json`` into ``bundle``."""
        (bundle / PRIVACY_REPORT_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def balanced_accuracy(predicted: Labels, truth: Labels) -> Interval:
    """Mean recall over the classes that occur, with its normal 95 % interval (recalls are independent binomials).

    Args:
        predicted: int64 ``(N,)``.
        truth: int64 ``(N,)``, N >= 1.
    """
    shares, variances = [], []
    for label in np.unique(truth):
        right = predicted[truth == label] == label
        shares.append(right.mean())
        variances.append(shares[-1] * (1 - shares[-1]) / len(right))
    return _interval(float(np.mean(shares)), math.sqrt(sum(variances)) / len(shares))


def accuracy(predicted: Labels, truth: Labels) -> Interval:
    """Share of right answers, with its normal 95 % interval."""
    share = float((predicted == truth).mean())
    return _interval(share, math.sqrt(share * (1 - share) / len(truth)))


def macro_auc(probabilities: npt.NDArray[np.float32], truth: Labels) -> float | None:
    """Area under the ROC curve of each class against the rest, averaged over the classes that occur.

    Args:
        probabilities: float32 ``(N, classes)``.
        truth: int64 ``(N,)``.

    Returns:
        0..1; None where only one class occurs.
    """
    present = np.unique(truth)
    if len(present) < 2:
        return None
    return float(np.mean([roc_auc_score(truth == label, probabilities[:, label]) for label in present]))


def hardware() -> str:
    """Name this machine's processor, cores and operating system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def percent(value: Interval | None) -> str:
    """Write ``61.9 % (59.4 to 64.4)``."""
    if value is None:
        return "not measured"
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _interval(value: float, deviation: float) -> Interval:
    reach = _Z_95 * deviation
    return Interval(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach))
