"""What one measurement of a bundle is: the parts of a :class:`~dcp_sdk.bundles.privacy_report.PrivacyReport`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Annotated

from pydantic import Field

from ..contract import Frozen, Line

__all__ = [
    "LIKELIHOOD",
    "Z_95",
    "AttackResult",
    "Certificate",
    "Confusion",
    "Control",
    "Finite",
    "FramesPoint",
    "GroupResult",
    "Interval",
    "LeakedPoint",
    "Luck",
    "OtherAttribute",
    "Panels",
    "Ranked",
    "Reconstruction",
    "SideChannel",
    "Utility",
    "has_trained",
    "percent",
    "points",
    "share",
    "strongest_of",
]

LIKELIHOOD = "likelihood under the noise"
"""Name of the attacker who knows the noise: without it nothing is known of a bundle that draws some."""
Z_95 = NormalDist().inv_cdf(0.975)
"""Standard deviations to either side of a normal 95 % interval."""


Finite = Annotated[float, Field(allow_inf_nan=False)]
"""No comparison with what is not a number says anything: it must not pass for one."""


class Confusion(Frozen):
    """How often each class was taken for each."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """One row per true class, one column per answer."""


class Interval(Frozen):
    """A share, or the difference of two, with its 95 % interval."""

    value: Finite
    low: Finite
    high: Finite


class GroupResult(Frozen):
    """The task's balanced accuracy among the pictures of one group."""

    attribute: Line
    label: Line
    pictures: int
    balanced_accuracy: Interval


class Utility(Frozen):
    """How well the bundle answers its task, on validation pictures."""

    pictures: int
    balanced_accuracy: Interval
    groups: tuple[GroupResult, ...]
    confusion: Confusion | None = None
    """Of the first draw."""
    draws: int = 1
    """How often each picture was asked about where the device draws at random; the shares are means over them."""


class Control(Frozen):
    """What an adversary that learnt nothing of the attribute reads of the *task*, from the same payloads.

    That is known to be in there: who cannot read it either has failed, and proves nothing.
    """

    balanced_accuracy: Interval
    needed: float
    """Halfway between guessing the task and what the task head reads, and more than guessing for sure."""

    @property
    def passed(self) -> bool:
        """Whether the adversary works on these payloads."""
        return self.balanced_accuracy.value >= self.needed


class Ranked(Frozen):
    """How well somebody tells who is likelier of a group than others, whatever he answers."""

    auc: Finite | None = None
    """Area under the ROC curve, one group against the rest, mean over the groups; chance is 0.5. Of several tries it is
    that of the best."""
    auc_error: Finite | None = None
    """Its standard error, from the number of pictures."""

    @property
    def ranking(self) -> Interval | None:
        """:attr:`auc` with its 95 % interval."""
        if self.auc is None or self.auc_error is None:
            return None
        reach = Z_95 * self.auc_error
        return Interval(value=self.auc, low=max(0.0, self.auc - reach), high=min(1.0, self.auc + reach))


class AttackResult(Ranked):
    """One fresh adversary, trained on payloads after everything else was frozen."""

    name: Line
    balanced_accuracy: Interval
    accuracy: Interval
    recalls: dict[str, float]
    """Share of each group that it recognises."""
    training_loss: float
    """Cross-entropy on its own training payloads, in nats."""
    held_out_loss: float | None = None
    """The same on leaked payloads that it did not learn from: knowing pairs by heart is no learning. None in reports of
    before."""
    prior_entropy: float
    """Cross-entropy of always answering the groups' frequencies. An adversary that stays there did not train."""
    minutes: float
    how: Line = ""
    """Scaling and settings that the adversary chose on held-out leaked pairs."""
    confusion: Confusion | None = None
    seeds: dict[str, float] = Field(default_factory=dict)
    """Balanced accuracy of each seed; the strongest is the one that is reported above."""
    control: Control | None = None
    """Only of one that did not train: whether there was nothing to learn, or it cannot learn."""

    @property
    def exposures(self) -> dict[str, Interval]:
        """By how much more often than the mean of the other groups each group is called what it is: 0 for who guesses,
        however often that is the answer, 1 for who knows. Empty without :attr:`confusion`.
        """
        if self.confusion is None:
            return {}
        rows = {label: row for label, row in zip(self.confusion.labels, self.confusion.counts, strict=True) if sum(row)}
        return {
            label: _difference(row[number], sum(row), [(other[number], sum(other)) for other in others])
            for number, label in enumerate(self.confusion.labels)
            if (row := rows.get(label)) is not None
            and (others := [other for name, other in rows.items() if name != label])
        }

    @property
    def trained(self) -> bool:
        """Whether it learned anything at all."""
        loss = self.training_loss if self.held_out_loss is None else self.held_out_loss
        return has_trained(loss, self.prior_entropy)

    @property
    def works(self) -> bool:
        """Whether it can read such payloads at all: it trained, or it reads the task from the very same ones."""
        return self.trained or (self.control is not None and self.control.passed)

    @property
    def counts(self) -> bool:
        """Whether its figure means something: it works, or it answers or ranks better than guessing for sure, however
        it came to that. The latter shows that something is told, never that nothing is.
        """
        answers = self.balanced_accuracy.low > 1 / max(2, len(self.recalls))
        return self.works or answers or (self.ranking is not None and self.ranking.low > 0.5)

    @property
    def note(self) -> str:
        """How it was done, and why it counts or does not."""
        if self.trained:
            return self.how
        if not self.counts:
            return "did not train: proves nothing"
        said = f"{self.how}; its loss stayed near guessing"
        if self.control is None:
            return said
        read = percent(self.control.balanced_accuracy)
        return f"{said}, while it reads the task with {read} from the same payloads"


class Luck(Frozen):
    """What the strongest of all adversaries would read if their answers had nothing to do with the attribute.

    These are the same answers, with the tested pictures' labels shuffled. The value is the mean over shuffles, and 95 %
    of them lie between its ends: more than :attr:`Interval.high` is no luck.
    """

    shuffles: int
    balanced_accuracy: Interval
    auc: Interval | None
    """Of the best of their :attr:`Ranked.auc`."""
    exposure: Interval | None = None
    """Of the largest of their :attr:`AttackResult.exposures`, of any group."""
    exposures: dict[Line, float] = Field(default_factory=dict)
    """For each group what its exposure does not exceed; in 97.5 % of shuffles no group's does. A small group varies
    more, which must not excuse a large one. Empty in reports of before."""


class SideChannel(Ranked):
    """What something else than the values tells."""

    name: Line
    balanced_accuracy: Interval
    chance: float
    information_bits: float | None = None
    """Bits that it tells about the sensitive attribute, at least: what the adversary's answers prove of the mutual
    information (Barber and Agakov 2003)."""

    @property
    def silent(self) -> bool:
        """Whether guessing lies within the intervals, of answers and of ranking."""
        return self.balanced_accuracy.low <= self.chance and (self.ranking is None or self.ranking.low <= 0.5)


class LeakedPoint(Frozen):
    """The strongest family's result when fewer pairs leaked."""

    pairs: int
    attack: Line
    balanced_accuracy: Interval


class FramesPoint(Ranked):
    """What the strongest adversary reads when the server sees many frames of one picture."""

    frames: int
    moving: bool = False
    """Whether the face moved, and the light changed, from frame to frame, as far as one picture can be shifted, scaled,
    turned and lit in other ways; otherwise only the noise did."""
    attack: Line
    balanced_accuracy: Interval
    auc_attack: Line | None = None
    """Who ranks best, which may be another than :attr:`attack`."""
    exposures: dict[Line, Interval] = Field(default_factory=dict)
    """As :attr:`AttackResult.exposures`, for each group of who exposes it most. Empty in reports of before."""
    luck: Luck | None = None
    """What the strongest of those that tried would read by luck."""

    @property
    def seen(self) -> str:
        """What the server saw: ``100 frames of one picture``."""
        return f"{self.frames} frames of {'a face moved by simulation' if self.moving else 'one picture'}"


class OtherAttribute(Frozen):
    """What is read of an attribute that nobody asked to hide."""

    name: Line
    labels: Annotated[tuple[Line, ...], Field(min_length=2)]
    attack: Line
    balanced_accuracy: Interval
    """Of the strongest of a few adversaries; guessing gives one over the number of labels."""


class Reconstruction(Frozen):
    """How near an attack came to the pictures themselves. Data range 1."""

    name: Line
    pictures: int
    ssim: float
    """Structural similarity, mean over the pictures; 1 is identity."""
    psnr_db: float
    mse: float | None = None
    """Mean squared error of a pixel, mean over the pictures."""
    mse_error: float | None = None
    """Standard error of :attr:`mse`, from the number of pictures."""
    mean_picture_ssim: float
    """SSIM of always drawing the mean picture: what no payload is needed for."""
    lpips: float | None = None
    """Learned perceptual distance, 0 is identity; None where its backbone's weights were not at hand."""
    attribute: Interval | None = None
    """Balanced accuracy of a fresh classifier of the sensitive attribute on the drawings; None where few were drawn."""
    pictures_attribute: Interval | None = None
    """The same on the pictures themselves: what perfect drawings would give away."""
    panels: tuple[str, ...] = ()
    """What it recovered of each of the report's :attr:`PrivacyReport.panels`, in their order: PNG in base64."""


class Certificate(Frozen):
    """What holds against any attacker, not only those that were tried; None where nothing does."""

    capacity_bits: int
    """Bits that one payload can carry at all."""
    reconstruction_mse: float | None = None
    """Least mean squared error of a pixel (data range 1) of any reconstruction, if pictures vary like a Gaussian with
    the data set's covariance: from the payload's bits, or from its noise and the derivatives at some pictures, which
    overstates it a little, where that is more."""
    reconstruction_pictures: float | None = None
    """How many pictures would show as much if each counted alike: those whose values are cut off show nothing. None
    where the payload's bits decide."""
    delta: float | None = None
    """δ of :attr:`epsilons`."""
    epsilons: dict[int, float] = Field(default_factory=dict)
    """ε of (ε, δ)-differential privacy for any two pictures, by how many frames of one picture the server sees."""
    best_accuracy: float | None = None
    """Balanced accuracy of the best possible attacker on one payload of the tested pictures, expected over the noise,
    if they know every one of these pictures and the noise. For other pictures an estimate."""
    shuffled_accuracy: float | None = None
    """What that attacker would read if the labels were shuffled: what knowing these very pictures by heart gains, which
    tells nothing about any others; mean over orders of the labels."""
    most_shuffled_accuracy: float | None = None
    """The same, which 97.5 % of orders do not exceed."""
    information_bits: float | None = None
    """Bits that one payload of these pictures tells about the sensitive attribute."""
    information_error: float | None = None
    """Standard error of :attr:`information_bits`, from the number of draws of the noise alone."""
    shuffled_bits: float | None = None
    """Bits that it would tell about shuffled labels; mean over orders."""
    most_shuffled_bits: float | None = None
    """The same, which 97.5 % of orders do not exceed."""


class Panels(Frozen):
    """Pictures that may be shown, public-domain or drawn: never those of a data set."""

    origin: str
    """Where they come from."""
    pictures: tuple[str, ...]
    """As the device graph takes them: PNG in base64."""


def has_trained(loss: float, prior_entropy: float) -> bool:
    """Whether an adversary's loss left that of always answering the groups' frequencies."""
    return loss < 0.95 * prior_entropy


def strongest_of(attacks: Sequence[AttackResult]) -> AttackResult | None:
    """Return the adversary that reads most, of those that count; None if none does."""
    counted = [attack for attack in attacks if attack.counts]
    return max(counted, key=lambda attack: attack.balanced_accuracy.value, default=None)


def share(value: float) -> str:
    """Write a share of one.

    >>> share(0.2)
    '20.0 %'
    """
    return f"{100 * value:.1f} %"


def points(difference: Interval) -> str:
    """Write a difference of shares: ``+8.3 (-0.6 to 17.2)``."""
    return f"{100 * difference.value:+.1f} ({100 * difference.low:.1f} to {100 * difference.high:.1f})"


def percent(value: Interval | None) -> str:
    """Write ``61.9 % (59.4 to 64.4)``."""
    if value is None:
        return "not measured"
    return f"{share(value.value)} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _difference(named: int, pictures: int, others: Sequence[tuple[int, int]]) -> Interval:
    """Return the share of ``named`` less the mean of the ``others``, with the normal approximation's interval.

    Its variance is that of one more in and one more out of each group (Agresti and Caffo 2000): none or all of a few
    pictures are not certain.
    """
    value = named / pictures - sum(count / size for count, size in others) / len(others)
    variances = [(count + 1) * (size - count + 1) / (size + 2) ** 3 for count, size in ((named, pictures), *others)]
    reach = Z_95 * math.sqrt(variances[0] + sum(variances[1:]) / len(others) ** 2)
    return Interval(value=value, low=max(-1.0, value - reach), high=min(1.0, value + reach))
