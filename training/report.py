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

from dcp_sdk.contract import PRIVACY_REPORT_FILE
from dcp_sdk.errors import ConfigError

__all__ = [
    "AttackResult",
    "GroupResult",
    "Interval",
    "PrivacyReport",
    "Utility",
    "balanced_accuracy",
    "hardware",
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

    @property
    def trained(self) -> bool:
        """Whether it learned anything at all; if not, it proves nothing."""
        return self.training_loss < 0.95 * self.prior_entropy


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
    seed: int
    created: str
    hardware: str
    command: str

    @property
    def strongest(self) -> Interval | None:
        """The headline: the highest balanced accuracy of all adversaries that trained; None if none did."""
        trained = [attack.balanced_accuracy for attack in self.attacks if attack.trained]
        return max(trained, key=lambda interval: interval.value, default=None)

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
