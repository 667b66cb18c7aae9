"""One audit of one bundle: what leaked, who attacks it, and each part of the report in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from dcp_sdk.bundles.measurements import (
    LIKELIHOOD,
    AttackResult,
    Certificate,
    Control,
    FramesPoint,
    Interval,
    LeakedPoint,
    Luck,
    OtherAttribute,
    Panels,
    Reconstruction,
    SideChannel,
    Utility,
    has_trained,
    percent,
)

from .. import data as datasets
from ..attacks import ATTACKS, ENSEMBLE, AttackSettings, Guess, Knowledge, SearchSettings, together
from ..config import Recipe
from ..console import console
from ..payloads import Payloads
from ..reports.panels import as_panels, panel_payloads, panel_pictures
from .cache import ResultCache, judging_code
from .certificate import certify
from .drawings import Reader, measure_reconstruction
from .evidence import Evidence
from .knows_noise import KnowsNoise
from .measure import (
    as_control,
    judge,
    leaked_curve,
    measure_attack,
    measure_many_frames,
    most_exposing,
    prior_entropy,
    run_attack,
    tries,
)
from .permutation_test import permutation_test
from .side_channels import measure_side_channels
from .utility import measure_utility

__all__ = ["Audit"]

_SMALL = 256
"""Values of a payload up to which every adversary tries the averages, too."""
_OTHERS = ("linear probe", "MLP", "gradient boosting")
"""Who tries attributes that nobody asked to hide."""


@dataclass(frozen=True)
class Audit:
    """Adversaries' answers, averages and drawings are written down in a :class:`ResultCache`, so that an audit goes on
    where it was cut off; the rest takes minutes, and is measured anew.
    """

    evidence: Evidence
    recipe: Recipe
    folder: Path | None
    """Root of the data set that the recipe describes."""
    settings: AttackSettings
    """How hard adversaries try, and the first of their seeds."""
    search: SearchSettings
    """How long those search that look for one picture at a time."""
    seeds: int
    """Of each adversary; the strongest counts."""
    frames: tuple[int, ...]
    """Over how many frames of one picture a server averages, each a measurement of its own."""
    moving: tuple[int, ...]
    """The same for frames of a face that moves."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the groups."""
        return self.evidence.splits.sensitive.labels

    def utility(self, repository: Path) -> Utility:
        """How well the bundle answers its task, with the head in ``repository``."""
        evidence = self.evidence
        utility = measure_utility(evidence.bundle, repository, evidence.splits)
        task = evidence.manifest.contract.task.name
        console.print(f"{evidence.manifest.name}: {task} {percent(utility.balanced_accuracy)}")
        return utility

    def adversaries(self, names: Sequence[str], head: float) -> tuple[list[AttackResult], Luck | None]:
        """Let each adversary learn and answer with each seed, and then all of them together that work.

        What the best of them would read by luck comes with it.

        Args:
            names: Out of ``ATTACKS``.
            head: Balanced accuracy of the task head, for the controls.
        """
        evidence = self.evidence
        everything: list[list[Guess]] = []
        working: list[Guess] = []
        results: list[AttackResult] = []

        def add(name: str, guesses: dict[str, Guess], control: Control | None) -> None:
            results.append(judge(name, guesses, evidence.leaked, evidence.target, self.labels, control))
            result = results[-1]
            console.print(f"{name}: {percent(result.balanced_accuracy)} ({result.note}; {result.minutes} min)")
            everything.append(list(guesses.values()))
            if result.counts:
                working.extend(guesses.values())

        for name in names:
            guesses = self._guesses(name)
            prior = prior_entropy(evidence.leaked)
            # Of several tries any may turn out the strongest: each must have trained, or the control must speak for it.
            losses = [guess.held_out_loss for guess in guesses.values()]
            trained = all(loss is not None and has_trained(loss, prior) for loss in losses)
            add(name, guesses, None if trained else self._control(name, head))
        if names and self._knows_noise is not None:
            add(LIKELIHOOD, *self._likelihood(self._knows_noise, head))
        if (mean := together(working)) is not None:
            controls = [result.control for result in results if result.counts and result.control is not None]
            weakest = min(controls, key=lambda control: control.balanced_accuracy.value, default=None)
            add(ENSEMBLE, {str(self.settings.seed): mean}, weakest)
        return results, permutation_test(everything, evidence.target.labels, self.labels)

    def fewer_pairs(self, results: Sequence[AttackResult]) -> tuple[LeakedPoint, ...]:
        """Repeat the strongest adversary with less that has leaked."""
        leaked, target = self.evidence.leaked, self.evidence.target
        *_, (_, pairs, _) = tries(leaked, target, self.settings, [self.settings.seed])
        return leaked_curve(results, pairs, target, self.settings, self.labels)

    def many_frames(self, results: Sequence[AttackResult]) -> list[FramesPoint]:
        """Let adversaries read averages over many frames: all of them where payloads are small, else the strongest."""
        working = [result for result in results if result.name in ATTACKS and result.counts]
        contract = self.evidence.manifest.contract
        if contract.noise is None or not working:
            return []
        if math.prod(contract.values_shape) > _SMALL:
            working = sorted(working, key=lambda result: result.balanced_accuracy.value)[-1:]
        names = [result.name for result in working]
        points = []
        for counts, moving in ((self.frames, False), (self.moving, True)):
            for count, pairs in zip(counts, self.evidence.averages(counts, moving=moving), strict=True):
                points.append(self._frames_point(count, names, *pairs, moving=moving))
        return points

    def _frames_point(
        self, count: int, names: Sequence[str], known: Payloads, target: Payloads, *, moving: bool
    ) -> FramesPoint:
        def measure() -> FramesPoint:
            informed, classes = self._knows_noise, self.settings.classes
            exact = (
                partial(informed.guess_from_frames, informed.frames(count, moving=moving), classes)
                if informed
                else None
            )
            results, luck = measure_many_frames(known, target, self.settings, self.labels, names, self._seeds, exact)
            best = max(results, key=lambda result: result.balanced_accuracy.value)
            ranks_best = max(results, key=lambda result: result.auc or 0)
            return FramesPoint(
                frames=count,
                moving=moving,
                attack=best.name,
                balanced_accuracy=best.balanced_accuracy,
                auc=ranks_best.auc,
                auc_error=ranks_best.auc_error,
                auc_attack=ranks_best.name,
                exposures=most_exposing(results),
                luck=luck,
            )

        what = f"{count} frames{' of a moving face' if moving else ''}"
        point = self.evidence.cache(self.settings, names, self.seeds, judging_code()).once(what, FramesPoint, measure)
        console.print(f"{what}: {percent(point.balanced_accuracy)} ({point.attack})")
        return point

    def drawings(self, names: Sequence[str]) -> tuple[list[Reconstruction], Panels | None]:
        """Let each reconstruction draw the pictures behind the payloads, and those that the report may show.

        Args:
            names: Out of ``RECONSTRUCTIONS``.
        """
        if not names:
            return [], None
        evidence = self.evidence
        shown, origin = panel_pictures(self.recipe.data, evidence.splits)
        panels, payloads = as_panels(shown, origin), panel_payloads(evidence.bundle, evidence.manifest, shown)
        cache = evidence.cache(self.settings, self.search, panels, judging_code())
        contract, leaked, pictures = evidence.manifest.contract, evidence.leaked, evidence.leaked_pictures
        reader = Reader(Knowledge(evidence.bundle, contract, leaked, pictures, self.settings, self.search))
        truth = evidence.splits.val.pictures
        drawings = []
        for name in names:
            draw = partial(measure_reconstruction, name, reader, evidence.target, truth, payloads)
            drawings.append(cache.once(name, Reconstruction, draw))
            console.print(f"{name} draws the picture: SSIM {drawings[-1].ssim:.2f}, {drawings[-1].psnr_db:.1f} dB")
        return drawings, panels

    def side_channels(self, repository: Path) -> tuple[SideChannel, ...]:
        """Measure what mask, latency and the answers of the head in ``repository`` tell."""
        return measure_side_channels(self.evidence, repository, self.settings)

    def certificate(self) -> Certificate:
        """State what holds against any attacker."""
        evidence = self.evidence
        return certify(evidence.bundle, evidence.manifest, self.recipe.network.bottleneck, evidence.splits)

    def readout(self) -> Interval:
        """Balanced accuracy of the task, read from the payload by one linear layer instead of the head."""
        return measure_attack("linear probe", *self._task, self.evidence.splits.task.labels).balanced_accuracy

    def others(self) -> list[OtherAttribute]:
        """Let a few adversaries read the recipe's ``data.others``: attributes that nobody asked to hide."""
        found = []
        for attribute in self.recipe.data.others:
            names, known, truth = datasets.labels(self.recipe.data, self.folder, attribute)
            question = self._asked(names, known[datasets.order(len(known))], truth[datasets.order(len(truth))])
            results = [measure_attack(name, *question, names) for name in _OTHERS]
            best = max(results, key=lambda result: result.balanced_accuracy.value)
            found.append(
                OtherAttribute(
                    name=attribute.name, labels=names, attack=best.name, balanced_accuracy=best.balanced_accuracy
                )
            )
            console.print(f"{attribute.name}, which nobody asked to hide: {percent(best.balanced_accuracy)}")
        return found

    def masks(self) -> int:
        """Different choices of channels among the validation pictures."""
        return len(np.unique(self.evidence.target.channels, axis=0))

    def _guesses(self, name: str) -> dict[str, Guess]:
        leaked, target = self.evidence.leaked, self.evidence.target
        return {
            key: self._cache.once(f"{name}, seed {key}", Guess, partial(run_attack, name, pairs, target, how))
            for key, pairs, how in tries(leaked, target, self.settings, self._seeds)
        }

    def _likelihood(self, informed: KnowsNoise, head: float) -> tuple[dict[str, Guess], Control]:
        """Let who knows the noise answer, about the attribute and, as a control, about the task."""
        leaked, target, settings = self._task
        control = as_control(informed.guess(leaked, target, settings.classes), target, head)
        once = tries(self.evidence.leaked, self.evidence.target, self.settings, [self.settings.seed])
        return {key: informed.guess(pairs, self.evidence.target, how.classes) for key, pairs, how in once}, control

    def _control(self, name: str, head: float) -> Control:
        """Let one adversary read the task instead, with the same settings."""
        _, target, _ = self._task
        guess = self._cache.once(f"{name}, control", Guess, partial(run_attack, name, *self._task))
        return as_control(guess, target, head)

    @cached_property
    def _knows_noise(self) -> KnowsNoise | None:
        return KnowsNoise.of(self.evidence, self.recipe.network.bottleneck)

    @property
    def _cache(self) -> ResultCache:
        return self.evidence.cache(self.settings)

    @property
    def _seeds(self) -> range:
        return range(self.settings.seed, self.settings.seed + self.seeds)

    @property
    def _task(self) -> tuple[Payloads, Payloads, AttackSettings]:
        splits = self.evidence.splits
        return self._asked(splits.task.labels, splits.train.task, splits.val.task)

    def _asked(
        self, labels: Sequence[str], known: datasets.Labels, truth: datasets.Labels
    ) -> tuple[Payloads, Payloads, AttackSettings]:
        """Ask the same payloads for something else: what leaked, what is answered for, and how."""
        return *self.evidence.labelled(known, truth), replace(self.settings, classes=len(labels))
