"""What was measured of a bundle: how well it answers, and what fresh adversaries read from its payloads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from .bundle import PRIVACY_REPORT_FILE, Bundle, BundleLike
from .contract import Contract, Line
from .errors import BundleError

__all__ = [
    "AttackResult",
    "Certificate",
    "Confusion",
    "Control",
    "FramesPoint",
    "GroupResult",
    "Interval",
    "LeakedPoint",
    "OtherAttribute",
    "Panels",
    "PrivacyReport",
    "Reconstruction",
    "SideChannel",
    "Utility",
    "has_trained",
    "percent",
    "strongest_of",
]

_AGAIN = "Measure it again with training.evaluate."


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Confusion(_Frozen):
    """How often each class was taken for each."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """One row per true class, one column per answer."""


class Interval(_Frozen):
    """A share with its 95 % interval, all in 0..1."""

    value: float
    low: float
    high: float


class GroupResult(_Frozen):
    """The task's balanced accuracy among the pictures of one group."""

    attribute: Line
    label: Line
    pictures: int
    balanced_accuracy: Interval


class Utility(_Frozen):
    """How well the bundle answers its task, on validation pictures."""

    pictures: int
    balanced_accuracy: Interval
    groups: tuple[GroupResult, ...]
    confusion: Confusion | None = None


class Control(_Frozen):
    """What an adversary that learnt nothing of the attribute reads of the *task*, from the same payloads.

    That is known to be in there: who cannot read it either has failed, and proves nothing.
    """

    balanced_accuracy: Interval
    needed: float
    """Halfway between guessing the task and what the task head reads."""

    @property
    def passed(self) -> bool:
        """Whether the adversary works on these payloads."""
        return self.balanced_accuracy.value >= self.needed


class AttackResult(_Frozen):
    """One fresh adversary, trained on payloads after everything else was frozen."""

    name: Line
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
    how: Line = ""
    """Scaling and settings that the adversary chose on held-out leaked pairs."""
    confusion: Confusion | None = None
    seeds: dict[str, float] = {}
    """Balanced accuracy of each seed; the strongest is the one that is reported above."""
    control: Control | None = None
    """Only of one that did not train: whether there was nothing to learn, or it cannot learn."""

    @property
    def trained(self) -> bool:
        """Whether it learned anything at all."""
        return has_trained(self.training_loss, self.prior_entropy)

    @property
    def counts(self) -> bool:
        """Whether its figure means something: it trained, or it reads the task from the very same payloads."""
        return self.trained or (self.control is not None and self.control.passed)

    @property
    def note(self) -> str:
        """How it was done, and why it counts or does not."""
        if self.trained:
            return self.how
        if not self.counts:
            return "did not train: proves nothing"
        assert self.control is not None
        read = percent(self.control.balanced_accuracy)
        return f"{self.how}; learnt nothing, while it reads the task with {read} from the same payloads"


class SideChannel(_Frozen):
    """What something else than the values tells."""

    name: Line
    balanced_accuracy: Interval
    chance: float

    @property
    def silent(self) -> bool:
        """Whether guessing lies within the interval."""
        return self.balanced_accuracy.low <= self.chance


class LeakedPoint(_Frozen):
    """The strongest family's result when fewer pairs leaked."""

    pairs: int
    attack: Line
    balanced_accuracy: Interval


class FramesPoint(_Frozen):
    """What the strongest adversary reads when the server averages many frames of one picture."""

    frames: int
    attack: Line
    balanced_accuracy: Interval


class OtherAttribute(_Frozen):
    """What is read of an attribute that nobody asked to hide."""

    name: Line
    labels: tuple[Line, ...]
    attack: Line
    balanced_accuracy: Interval
    """Of the strongest of a few adversaries; guessing gives one over the number of labels."""


class Reconstruction(_Frozen):
    """How near an attack came to the pictures themselves. Data range 1."""

    name: Line
    pictures: int
    ssim: float
    """Structural similarity, mean over the pictures; 1 is identity."""
    psnr_db: float
    mse: float | None = None
    """Mean squared error of a pixel, mean over the pictures."""
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


class Certificate(_Frozen):
    """What holds against any attacker, not only those that were tried; None where nothing does."""

    capacity_bits: int
    """Bits that one payload can carry at all."""
    reconstruction_mse: float | None = None
    """Least mean squared error of a pixel (data range 1) of any reconstruction, if pictures vary like a Gaussian with
    the data set's covariance."""
    delta: float | None = None
    """δ of :attr:`epsilons`."""
    epsilons: dict[int, float] = {}
    """ε of (ε, δ)-differential privacy for any two pictures, by how many frames of one picture the server sees."""
    best_accuracy: float | None = None
    """Balanced accuracy of the best possible attacker for one payload, if the pictures measured are the population and
    he knows all of them: above what is true for pictures that are only like them."""
    information_bits: float | None = None
    """Bits that one payload tells about the sensitive attribute, under the same assumption."""
    information_error: float | None = None
    """Standard error of :attr:`information_bits`."""


class Panels(_Frozen):
    """Pictures that may be shown, public-domain or drawn: never those of a data set."""

    origin: str
    """Where they come from."""
    pictures: tuple[str, ...]
    """As the device graph takes them: PNG in base64."""


class PrivacyReport(_Frozen):
    """All that was measured of one bundle."""

    schema_version: Literal[1] = 1
    contract_digest: str
    """Of the bundle that was measured."""
    sensitive: Line
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
    many_frames: tuple[FramesPoint, ...] = ()
    """With more frames, ascending; empty where nothing is random, so that one picture always gives one payload."""
    reconstructions: tuple[Reconstruction, ...] = ()
    certificate: Certificate | None = None
    readout: Interval | None = None
    """Balanced accuracy of the *task*, read from the payload by one linear layer: is the answer already in it?"""
    others: tuple[OtherAttribute, ...] = ()
    masks: int | None = None
    """Different choices of channels among the test pictures."""
    panels: Panels | None = None
    quick: bool = False
    """Whether the adversaries were weakened to give a first verdict."""
    seed: int
    created: str
    hardware: str
    command: str

    @property
    def strongest(self) -> Interval | None:
        """The headline: the highest balanced accuracy of all adversaries that count; None if none does."""
        best = strongest_of(self.attacks)
        return best.balanced_accuracy if best else None

    @property
    def strongest_attack(self) -> str | None:
        """Name of the adversary behind :attr:`strongest`."""
        best = strongest_of(self.attacks)
        return best.name if best else None

    @property
    def protected(self) -> bool | None:
        """False where the strongest adversary beats the majority rate by more than 10 points.

        None, not True, if no adversary counts or after a quick look: weak adversaries cannot show protection.
        """
        if self.strongest is None:
            return None
        beaten = self.strongest.value > max(self.majority, self.chance) + 0.10
        return False if beaten else None if self.quick else True

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        if self.strongest is None:
            return f"No adversary works on these payloads: nothing is known about whether {self.sensitive} is hidden."
        answer = {
            True: "Protected against the attacks that were tried",
            False: "NOT PROTECTED",
            None: "Not known yet, after a quick look only",
        }[self.protected]
        share = f"{percent(self.strongest)} balanced accuracy"
        return (
            f"{answer}: {self.strongest_attack} reads {self.sensitive} with {share}, guessing gives {self.chance:.1%}."
        )

    def without_pictures(self) -> Self:
        """Return the same figures without what is shown of them."""
        drawings = tuple(drawing.model_copy(update={"panels": ()}) for drawing in self.reconstructions)
        return self.model_copy(update={"panels": None, "reconstructions": drawings})

    @classmethod
    def load(cls, bundle: BundleLike, contract: Contract) -> Self | None:
        """Read the report of a bundle; None if it has none.

        Args:
            bundle: A bundle that was opened, or the path of its folder or archive.
            contract: The bundle's; a report about another one is refused.

        Raises:
            BundleError: The file does not fit the schema, or it was measured on another bundle.
        """
        opened = Bundle.of(bundle)
        path = opened.path / PRIVACY_REPORT_FILE
        if PRIVACY_REPORT_FILE not in opened.files:
            return None
        try:
            report = cls.model_validate_json(opened.read(PRIVACY_REPORT_FILE))
        except ValidationError as error:
            raise BundleError(f"{path}: expected a report of training.evaluate, got {error}. {_AGAIN}") from error
        if report.contract_digest != contract.digest:
            raise BundleError(
                f"{path}: expected measurements of contract {contract.digest[:12]}…, got those of "
                f"{report.contract_digest[:12]}…: another bundle. {_AGAIN}"
            )
        return report

    def save(self, bundle: Path) -> None:
        """Write ``privacy_report.json`` into ``bundle``."""
        (bundle / PRIVACY_REPORT_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def has_trained(training_loss: float, prior_entropy: float) -> bool:
    """Whether an adversary's loss left that of always answering the groups' frequencies."""
    return training_loss < 0.95 * prior_entropy


def strongest_of(attacks: Sequence[AttackResult]) -> AttackResult | None:
    """Return the adversary that reads most, of those that count; None if none does."""
    counted = [attack for attack in attacks if attack.counts]
    return max(counted, key=lambda attack: attack.balanced_accuracy.value, default=None)


def percent(value: Interval | None) -> str:
    """Write ``61.9 % (59.4 to 64.4)``."""
    if value is None:
        return "not measured"
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f})"
