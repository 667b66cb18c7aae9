"""What was measured of a bundle: how well it answers, and what fresh adversaries read from its payloads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from ..contract import Contract, Frozen, Line
from ..errors import BundleError
from .bundle import PRIVACY_REPORT_FILE, Bundle, BundleLike
from .measurements import (
    LIKELIHOOD,
    Z_95,
    AttackResult,
    Certificate,
    Finite,
    FramesPoint,
    Interval,
    LeakedPoint,
    Luck,
    OtherAttribute,
    Panels,
    Ranked,
    Reconstruction,
    SideChannel,
    Utility,
    percent,
    points,
    share,
    strongest_of,
)

__all__ = ["DRAWINGS", "MARGIN", "MOVING", "PrivacyReport"]

MARGIN = 0.10
"""Balanced accuracy beyond guessing from which nothing is called protected."""
DRAWINGS, MOVING = "drawings", "frames of a face that moves"
"""Measurements, as :attr:`PrivacyReport.untried` names them."""
_RANKING_BAR = 0.64
"""The same for AUC: where two groups are spread alike, it goes with 60 % (Φ(√2 Φ⁻¹(0.6)))."""
_LEAKED_PER_GROUP = 100
"""Pairs of each group, on average, that adversaries must have had before anything is called protected."""

_AGAIN = "Measure it again with training.evaluate."


class PrivacyReport(Frozen):
    """All that was measured of one bundle."""

    schema_version: Literal[1] = 1
    contract_digest: str
    """Of the bundle that was measured."""
    sensitive: Line
    chance: Finite
    """Balanced accuracy of guessing."""
    majority: float
    """Accuracy of always answering the largest group of the test pictures."""
    leaked: int
    """Labelled payloads that the adversaries had."""
    tested: int
    """Payloads that they were judged on."""
    utility: Utility
    attacks: tuple[AttackResult, ...]
    luck: Luck | None = None
    """What they would read at best if all of them guessed; None of one adversary, and in reports of before."""
    side_channels: tuple[SideChannel, ...] = ()
    leaked_curve: tuple[LeakedPoint, ...] = ()
    """With fewer leaked pairs, ascending."""
    many_frames: tuple[FramesPoint, ...] = ()
    """With more frames, ascending, of one picture and then of a face that moves; empty where nothing is random, so that
    one picture always gives one payload."""
    reconstructions: tuple[Reconstruction, ...] = ()
    certificate: Certificate | None = None
    readout: Interval | None = None
    """Balanced accuracy of the *task*, read from the payload by one linear layer: is the answer already in it?"""
    others: tuple[OtherAttribute, ...] = ()
    masks: int | None = None
    """Different choices of channels among the test pictures."""
    panels: Panels | None = None
    untried: tuple[Line, ...] = ()
    """Adversaries and measurements that were left out."""
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
        leaked pairs, from many frames, a drawing, or a side channel; or ranks people about as much better; or exposes
        one group, from one payload or many frames, by 10 points more than others, and more than luck would. Of two
        groups that is so wherever balanced accuracy is beyond 55 %.

        None, not True, after a quick look, with few leaked pairs, without some of the adversaries or measurements, if
        one of them does not work, or where an interval reaches so far: too little was measured to show protection.
        """
        if self.strongest is None:
            return None
        if any(reading.value > bar for _, reading, bar in self._readings) or self._outed is not None:
            return False
        return None if self._unknown else True

    @property
    def verdict(self) -> str:
        """One sentence for people, or a few."""
        if self.strongest is None:
            return f"No adversary works on these payloads: nothing is known about whether {self.sensitive} is hidden."
        answer = {
            True: f"Protected against the attacks that were tried, to within {100 * MARGIN:.0f} points of guessing",
            False: "NOT PROTECTED",
            None: f"Not known{self._unknown}",
        }[self.protected]
        said = (
            f"{answer}: {self.strongest_attack} reads {self.sensitive} with {percent(self.strongest)} balanced "
            f"accuracy, guessing gives {share(self.chance)}{self._beyond(self.strongest, self.luck)}.{self._ranked}"
        )
        for point in self.most_from_frames:
            beyond = self._beyond(point.balanced_accuracy, point.luck)
            said += f" From {point.seen}: {percent(point.balanced_accuracy)}{beyond}."
        return f"{said}{self._elsewhere}"

    @property
    def most_from_frames(self) -> tuple[FramesPoint, ...]:
        """Of frames of one picture, and of a moving face, as many as gave most away: who has more has those, too."""
        kinds = ([point for point in self.many_frames if point.moving is moves] for moves in (False, True))
        return tuple(max(kind, key=lambda point: point.balanced_accuracy.value) for kind in kinds if kind)

    @property
    def _unknown(self) -> str:
        """Why not enough is known to call anything protected; empty where enough is."""
        if self.quick:
            return " yet, after a quick look only"
        if self.untried:
            return f", without {', '.join(self.untried)}"
        if idle := [attack.name for attack in self.attacks if not attack.works]:
            return f": these do not work on such payloads: {', '.join(idle)}"
        if self.leaked < (needed := round(_LEAKED_PER_GROUP / self.chance)):
            return f", with {self.leaked:,} leaked pairs: {needed:,} are the least that show something"
        if any(reading.high > bar for _, reading, bar in self._readings):
            return ": too few pictures"
        return ""

    @property
    def _elsewhere(self) -> str:
        """What decides where the strongest adversary's answers, with which the verdict begins, do not."""
        if self.protected is True or self.quick or self.untried:
            return ""
        sure = self.protected is False
        beyond = [each for each in self._readings if (each[1].value if sure else each[1].high) > each[2]]
        if any(reading is self.strongest for _, reading, _ in beyond):
            return ""
        if beyond:
            what, reading, bar = max(beyond, key=lambda each: each[1].value - each[2])
            return f" What decides is {what}: {percent(reading)}, and the bar is {share(bar)}."
        if self._outed is None:
            return ""
        seen, group, exposure = self._outed
        said = f"{group}, called so more often than others by {points(exposure)} points"
        return f" What decides is one group: {said}{seen}."

    def _beyond(self, reading: Interval, luck: Luck | None) -> str:
        more = reading.low > self.chance if luck is None else reading.value > luck.balanced_accuracy.high
        return ", and that is more than guessing" if more and self.protected is not False else ""

    @property
    def _ranked(self) -> str:
        """Who tells more than guessing by how likely it finds each answer, whether or not the answers show it."""
        ranked = [(one.name, one.ranking, self.luck) for one in self.attacks if one.counts]
        ranked += [(one.name, one.ranking, None) for one in self.side_channels]
        ranked += [
            (f"{one.auc_attack or one.attack} from {one.seen}", one.ranking, one.luck) for one in self.many_frames
        ]
        told = [(name, ranking) for name, ranking, luck in ranked if ranking is not None and _better(ranking, luck)]
        if not told or self.protected is False:
            return ""
        name, ranking = max(told, key=lambda each: each[1].value)
        return (
            f" Who is likelier of a group than others is told better than by guessing, best by {name}: AUC "
            f"{ranking.value:.3f} ({ranking.low:.3f} to {ranking.high:.3f}), guessing has 0.500."
        )

    @property
    def most_exposed(self) -> tuple[str, Interval] | None:
        """The group of which any adversary that counts tells most, and how much (:attr:`AttackResult.exposures`)."""
        exposures = [each for attack in self.attacks if attack.counts for each in attack.exposures.items()]
        return max(exposures, key=lambda each: each[1].value, default=None)

    @property
    def _outed(self) -> tuple[str, str, Interval] | None:
        """How it was seen, which group is exposed too much, and how much: the mean over groups hides what one of them
        suffers. A group may be of a hundred pictures, so that luck alone exposes it by ten points; where luck was not
        measured, the interval decides.
        """
        seen = [("", attack.exposures, self.luck) for attack in self.attacks if attack.counts]
        seen += [(f", from {point.seen}", self._exposures(point), point.luck) for point in self.many_frames]
        found = [
            (beyond, how, group, exposure)
            for how, exposures, luck in seen
            for group, exposure in exposures.items()
            if (beyond := _beyond_luck(group, exposure, luck)) > 0
        ]
        return max(found, key=lambda each: each[0])[1:] if found else None

    def _exposures(self, point: FramesPoint) -> dict[str, Interval]:
        """Complete a report of before: two groups are exposed by twice what accuracy is beyond guessing."""
        if point.exposures or self.chance != 0.5:
            return dict(point.exposures)
        value, low, high = (2 * end - 1 for end in point.balanced_accuracy.model_dump().values())
        return {f"either group of {self.sensitive}": Interval(value=value, low=low, high=high)}

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
                if drawing.mse is not None and drawing.mse + Z_95 * (drawing.mse_error or 0) < least
            ]
        return tuple(found)

    @property
    def _readings(self) -> list[tuple[str, Interval, float]]:
        """Every way in which somebody read the attribute: what it is, how much, and what would be too much."""
        bar = self.chance + MARGIN
        found = [(self.strongest_attack or "", self.strongest, bar)] if self.strongest else []
        found += [
            (f"{self.sensitive} read from what {drawing.name} draws", drawing.attribute, bar)
            for drawing in self.reconstructions
            if drawing.attribute is not None
        ]
        found += [
            (f"{point.attack} with {point.pairs} leaked pairs", point.balanced_accuracy, bar)
            for point in self.leaked_curve
        ]
        ranked: list[tuple[str, Ranked]] = [(attack.name, attack) for attack in self.attacks if attack.counts]
        for seen in self.many_frames:
            found.append((f"{seen.attack} with {seen.seen}", seen.balanced_accuracy, bar))
            ranked.append((f"{seen.auc_attack or seen.attack} with {seen.seen}", seen))
        for channel in self.side_channels:
            found.append((channel.name, channel.balanced_accuracy, bar))
            ranked.append((channel.name, channel))
        for what, one in ranked:
            if one.ranking is not None:
                found.append((f"how {what} ranks people, by AUC", one.ranking, _RANKING_BAR))
        return found

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
        expected = contract.sensitive.name, 1 / len(contract.sensitive.labels)
        if (report.sensitive, report.chance) != expected:
            raise BundleError(
                f"{path}: expected measurements of {expected[0]}, where guessing gives {expected[1]}, got "
                f"{report.sensitive} with {report.chance}. {_AGAIN}"
            )
        return report.model_copy(update={"untried": (*report.untried, *report._missing(contract))})

    def _missing(self, contract: Contract) -> list[str]:
        """Name what an audit of such a bundle measures, and this one did not: it may be older than the measurement."""
        random = contract.noise is not None
        covered = random and contract.pruning.rule in ("none", "static")
        names = {attack.name for attack in self.attacks}
        there = {
            LIKELIHOOD: not covered or LIKELIHOOD in names,
            "many frames": not random or any(not point.moving for point in self.many_frames),
            MOVING: not random or any(point.moving for point in self.many_frames),
            DRAWINGS: bool(self.reconstructions),
            "side channels": bool(self.side_channels),
            "what luck would read": self.luck is not None,
        }
        return [name for name, measured in there.items() if not measured and name not in self.untried]

    def save(self, bundle: Path) -> None:
        """Write ``privacy_report.json`` into ``bundle``."""
        (bundle / PRIVACY_REPORT_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _beyond_luck(group: str, exposure: Interval, luck: Luck | None) -> float:
    """By how much a group's exposure is beyond what is too much."""
    if luck is None or luck.exposure is None:
        return exposure.low - MARGIN
    return exposure.value - max(MARGIN, luck.exposures.get(group, luck.exposure.high))


def _better(ranking: Interval, luck: Luck | None) -> bool:
    """Whether somebody ranks better than by guessing."""
    return ranking.low > 0.5 if luck is None or luck.auc is None else ranking.value > luck.auc.high
