"""What was measured of a bundle: how well it answers, and what fresh adversaries read from its payloads."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import Literal, Self

from pydantic import ValidationError

from ..contract import Contract, Frozen, Line
from ..errors import BundleError
from .bundle import PRIVACY_REPORT_FILE, Bundle, BundleLike
from .measurements import (
    AttackResult,
    Certificate,
    FramesPoint,
    Interval,
    LeakedPoint,
    OtherAttribute,
    Panels,
    Reconstruction,
    SideChannel,
    Utility,
    percent,
    share,
    strongest_of,
)

__all__ = ["MARGIN", "PrivacyReport"]

MARGIN = 0.10
"""Balanced accuracy beyond guessing from which nothing is called protected."""

_AGAIN = "Measure it again with training.evaluate."


class PrivacyReport(Frozen):
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
    untried: tuple[Line, ...] = ()
    """Adversaries that were left out."""
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
        """False where anybody reads the attribute with 10 points more than guessing: from one payload, of however many
        leaked pairs, from an average over many frames, a drawing, or a side channel.

        None, not True, if no adversary counts, after a quick look, without some of the adversaries, or where an
        interval reaches so far: too little was measured to show protection.
        """
        if self.strongest is None:
            return None
        bar = self.chance + MARGIN
        if any(reading.value > bar for reading in self._readings):
            return False
        return None if self.quick or self.untried or any(reading.high > bar for reading in self._readings) else True

    @property
    def verdict(self) -> str:
        """One sentence for people, or two."""
        if self.strongest is None:
            return f"No adversary works on these payloads: nothing is known about whether {self.sensitive} is hidden."
        answer = {
            True: f"Protected against the attacks that were tried, to within {100 * MARGIN:.0f} points of guessing",
            False: "NOT PROTECTED",
            None: self._unknown,
        }[self.protected]
        said = (
            f"{answer}: {self.strongest_attack} reads {self.sensitive} with {percent(self.strongest)} balanced "
            f"accuracy, guessing gives {share(self.chance)}{self._beyond(self.strongest)}."
        )
        if not self.many_frames:
            return said
        most = self.many_frames[-1].balanced_accuracy
        frames = f"From {self.many_frames[-1].frames} averaged frames of one picture"
        return f"{said} {frames}: {percent(most)}{self._beyond(most)}."

    @property
    def _unknown(self) -> str:
        """Why not enough is known."""
        if self.quick:
            return "Not known yet, after a quick look only"
        return f"Not known, without {', '.join(self.untried)}" if self.untried else "Not known: too few pictures"

    def _beyond(self, reading: Interval) -> str:
        return ", and that is more than guessing" if reading.low > self.chance and self.protected is not False else ""

    @property
    def most_exposed(self) -> tuple[str, Interval] | None:
        """The group of which any adversary that counts tells most, and how much (:attr:`AttackResult.exposures`)."""
        exposures = [each for attack in self.attacks if attack.counts for each in attack.exposures.items()]
        return max(exposures, key=lambda each: each[1].value, default=None)

    @property
    def lucky_guesser(self) -> float | None:
        """Balanced accuracy that the best of as many adversaries would be expected to show if all of them guessed.

        The strongest is chosen by what it reads on the tested pictures, so it is lucky, too (Blom's approximation).
        """
        tries = sum(max(1, len(attack.seeds)) for attack in self.attacks if attack.counts)
        if self.strongest is None or tries < 2:
            return None
        deviation = (self.strongest.high - self.strongest.low) / (2 * 1.96)
        return self.chance + deviation * NormalDist().inv_cdf((tries - 0.375) / (tries + 0.25))

    @property
    def violations(self) -> tuple[str, ...]:
        """Attacks beyond what the certificate says anybody can, by more than their interval: errors of ours."""
        if self.certificate is None:
            return ()
        found = []
        best, least = self.certificate.best_accuracy, self.certificate.reconstruction_mse
        if best is not None:
            found = [
                f"{attack.name} reads {self.sensitive} with {percent(attack.balanced_accuracy)}, "
                f"{share(best)} is possible"
                for attack in self.attacks
                if attack.balanced_accuracy.low > best
            ]
        if least is not None:
            found += [
                f"{drawing.name} errs by {drawing.mse:.4f}, at least {least:.4f} is certain"
                for drawing in self.reconstructions
                if drawing.mse is not None and drawing.mse < least
            ]
        return tuple(found)

    @property
    def _readings(self) -> list[Interval]:
        """Every way in which somebody read the attribute."""
        drawn = [drawing.attribute for drawing in self.reconstructions if drawing.attribute is not None]
        averaged = [point.balanced_accuracy for point in self.many_frames]
        beside = [channel.balanced_accuracy for channel in self.side_channels]
        fewer = [point.balanced_accuracy for point in self.leaked_curve]
        return [*([self.strongest] if self.strongest else []), *drawn, *averaged, *beside, *fewer]

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
