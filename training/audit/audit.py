"""One audit of one bundle: what leaked, who attacks it, and each part of the report in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import (
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
from ..attacks import (
    ATTACKS,
    ENSEMBLE,
    LIKELIHOOD,
    AttackSettings,
    Guess,
    Knowledge,
    SearchSettings,
    likelihood,
    likelihood_of_frames,
    together,
)
from ..config import Recipe
from ..console import console
from ..payloads import Payloads, collect
from ..reports.panels import as_panels, panel_payloads, panel_pictures
from .certificate import certify, is_covered_by_noise
from .drawings import measure_reconstruction
from .luck import by_luck
from .many_frames import averages, before_noise, histograms
from .measure import (
    as_control,
    judge,
    leaked_curve,
    measure_attack,
    measure_many_frames,
    measure_side_channels,
    measure_utility,
    needed_of_control,
    prior_entropy,
    run_attack,
    run_control,
    tries,
)
from .notebook import Notebook, attack_code, fingerprint

__all__ = ["Audit"]

_SMALL = 256
"""Values of a payload up to which every adversary tries the averages, too."""
_OTHERS = ("linear probe", "MLP", "gradient boosting")
"""Who tries attributes that nobody asked to hide."""
_SPLITS = ("train", "val")


@dataclass(frozen=True)
class Audit:
    """The training split is what leaked; adversaries are judged on the validation split.

    What takes long is written down in a :class:`Notebook`, so that an audit goes on where it was cut off.
    """

    bundle: Path
    manifest: Manifest
    recipe: Recipe
    folder: Path | None
    """Root of the data set that the recipe describes."""
    splits: datasets.Splits
    """In :func:`training.data.order`."""
    settings: AttackSettings
    """How hard adversaries try, and the first of their seeds."""
    search: SearchSettings
    """How long those search that look for one picture at a time."""
    seeds: int
    """Of each adversary; the strongest counts."""
    pairs: int | None
    """Leaked pairs at most."""
    frames: tuple[int, ...]
    """Over how many frames of one picture a server averages, each a measurement of its own."""
    moving: int
    """The same for frames of a face that moves; 0 leaves it out."""
    work: Path | None
    """Folder of the notebooks; None keeps none."""

    @cached_property
    def leaked(self) -> Payloads:
        """What the adversaries learn from."""
        everything = self._payloads("train", self.splits.train)
        return everything if self.pairs is None else everything[np.arange(min(len(everything), self.pairs))]

    @cached_property
    def target(self) -> Payloads:
        """What they answer for."""
        return self._payloads("val", self.splits.val)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the groups."""
        return self.splits.sensitive.labels

    def utility(self, repository: Path) -> Utility:
        """How well the bundle answers its task, with the head in ``repository``."""
        utility = measure_utility(self.bundle, repository, self.splits)
        console.print(f"{self.manifest.name}: {self.manifest.contract.task.name} {percent(utility.balanced_accuracy)}")
        return utility

    def adversaries(self, names: Sequence[str], head: float) -> tuple[list[AttackResult], Luck | None]:
        """Let each adversary learn and answer with each seed, and then all of them together that work.

        What the best of them would read by luck comes with it.

        Args:
            names: Out of ``ATTACKS``.
            head: Balanced accuracy of the task head, for the controls.
        """
        working: list[Guess] = []
        results: list[AttackResult] = []

        def add(name: str, guesses: dict[str, Guess], control: Control | None) -> None:
            results.append(judge(name, guesses, self.leaked, self.target, self.labels, control))
            result = results[-1]
            console.print(f"{name}: {percent(result.balanced_accuracy)} ({result.note}; {result.minutes} min)")
            if result.counts:
                working.extend(guesses.values())

        for name in names:
            guesses = self._guesses(name)
            prior = prior_entropy(self.leaked)
            # Of several tries any may turn out the strongest: each must have trained, or the control must speak for it.
            trained = all(has_trained(guess.training_loss, prior) for guess in guesses.values())
            add(name, guesses, None if trained else self._control(name, head))
        if names and is_covered_by_noise(self.manifest.contract, self.recipe.network.bottleneck):
            add(LIKELIHOOD, *self._likelihood(head))
        if (mean := together(working)) is not None:
            controls = [result.control for result in results if result.counts and result.control is not None]
            weakest = min(controls, key=lambda control: control.balanced_accuracy.value, default=None)
            add(ENSEMBLE, {str(self.settings.seed): mean}, weakest)
        return results, by_luck(working, self.target.labels)

    def fewer_pairs(self, results: Sequence[AttackResult]) -> tuple[LeakedPoint, ...]:
        """Repeat the strongest adversary with less that has leaked."""
        *_, (_, pairs, _) = tries(self.leaked, self.target, self.settings, [self.settings.seed])
        return leaked_curve(results, pairs, self.target, self.settings, self.labels)

    def many_frames(self, results: Sequence[AttackResult]) -> list[FramesPoint]:
        """Let adversaries read averages over many frames: all of them where payloads are small, else the strongest."""
        working = [result for result in results if result.name in ATTACKS and result.counts]
        if self.manifest.contract.noise is None or not working:
            return []
        if math.prod(self.manifest.contract.values_shape) > _SMALL:
            working = sorted(working, key=lambda result: result.balanced_accuracy.value)[-1:]
        names = [result.name for result in working]
        still = zip(self.frames, *(self._averages(split, self.frames) for split in _SPLITS), strict=True)
        points = [self._frames_point(count, names, known, target) for count, known, target in still]
        if self.moving:
            (known,), (target,) = (self._averages(split, (self.moving,), moving=True) for split in _SPLITS)
            points.append(self._frames_point(self.moving, names, known, target, moving=True))
        return points

    def _frames_point(
        self, count: int, names: Sequence[str], known: Payloads, target: Payloads, *, moving: bool = False
    ) -> FramesPoint:
        some = known[np.arange(len(self.leaked))]

        def measure() -> FramesPoint:
            exact = None if moving else self._likelihood_of_frames(count)
            best = measure_many_frames(some, target, self.settings, self.labels, names, self._seeds, exact)
            return FramesPoint(frames=count, moving=moving, attack=best.name, balanced_accuracy=best.balanced_accuracy)

        what = f"{count} frames{' of a moving face' if moving else ''}"
        point = self._notebook_for(self.settings, names, self.seeds).once(what, FramesPoint, measure)
        console.print(f"{what}: {percent(point.balanced_accuracy)} ({point.attack})")
        return point

    def drawings(self, names: Sequence[str]) -> tuple[list[Reconstruction], Panels | None]:
        """Let each reconstruction draw the pictures behind the payloads, and those that the report may show.

        Args:
            names: Out of ``RECONSTRUCTIONS``.
        """
        if not names:
            return [], None
        shown, origin = panel_pictures(self.recipe.data, self.splits)
        panels, payloads = as_panels(shown, origin), panel_payloads(self.bundle, self.manifest, shown)
        notebook = self._notebook_for(self.settings, self.search, panels)
        pictures = self.splits.train.pictures[: len(self.leaked)]
        known = Knowledge(self.bundle, self.manifest.contract, self.leaked, pictures, self.settings, self.search)
        drawings = []
        for name in names:
            draw = partial(measure_reconstruction, name, known, self.target, self.splits.val.pictures, payloads)
            drawings.append(notebook.once(name, Reconstruction, draw))
            console.print(f"{name} draws the picture: SSIM {drawings[-1].ssim:.2f}, {drawings[-1].psnr_db:.1f} dB")
        return drawings, panels

    def side_channels(self, repository: Path) -> tuple[SideChannel, ...]:
        """Measure what mask, latency and the answers of the head in ``repository`` tell."""
        return measure_side_channels(
            self.bundle, self.manifest, repository, self.splits, self.leaked, self.target, self.settings
        )

    def certificate(self) -> Certificate:
        """State what holds against any attacker."""
        return certify(self.bundle, self.manifest, self.recipe.network.bottleneck, self.splits)

    def readout(self) -> Interval:
        """Balanced accuracy of the task, read from the payload by one linear layer instead of the head."""
        return measure_attack(
            "linear probe", *self._task, self.splits.task.labels, (self.settings.seed,)
        ).balanced_accuracy

    def others(self) -> list[OtherAttribute]:
        """Let a few adversaries read the recipe's ``data.others``: attributes that nobody asked to hide."""
        found = []
        for attribute in self.recipe.data.others:
            names, known, truth = datasets.labels(self.recipe.data, self.folder, attribute)
            question = self._asked(names, known[datasets.order(len(known))], truth[datasets.order(len(truth))])
            results = [measure_attack(name, *question, names, (self.settings.seed,)) for name in _OTHERS]
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
        return len(np.unique(self.target.channels, axis=0))

    def _guesses(self, name: str) -> dict[str, Guess]:
        return {
            key: self._notebook.once(f"{name}, seed {key}", Guess, partial(run_attack, name, pairs, self.target, how))
            for key, pairs, how in tries(self.leaked, self.target, self.settings, self._seeds)
        }

    def _likelihood(self, head: float) -> tuple[dict[str, Guess], Control]:
        """Let the attacker answer who knows the noise, about the attribute and, as a control, about the task."""
        values, deviation, levels = self._before_noise, self._deviation, 2**self.manifest.contract.bits

        def guess(leaked: Payloads, target: Payloads, classes: int) -> Guess:
            return likelihood(leaked, values, target, deviation, levels, classes)

        leaked, target, settings = self._task
        control = as_control(guess(leaked, target, settings.classes), target, settings.classes, head)
        once = tries(self.leaked, self.target, self.settings, [self.settings.seed])
        return {key: guess(pairs, self.target, how.classes) for key, pairs, how in once}, control

    def _likelihood_of_frames(self, count: int) -> Guess | None:
        if not is_covered_by_noise(self.manifest.contract, self.recipe.network.bottleneck):
            return None
        (seen,) = histograms(self.bundle, self.manifest, self.splits.val.pictures, (count,))
        return likelihood_of_frames(self.leaked, self._before_noise, seen, self._deviation, self.settings.classes)

    @cached_property
    def _before_noise(self) -> npt.NDArray[np.float64]:
        pictures = self.splits.train.pictures[: len(self.leaked)]
        return before_noise(self.bundle, self.manifest.contract, pictures)

    @property
    def _deviation(self) -> float:
        """Of the noise, on values in 0..1."""
        neck = self.recipe.network.bottleneck
        assert neck is not None
        return neck.noise / (2 * neck.reach)

    def _control(self, name: str, head: float) -> Control:
        control = self._notebook.once(f"{name}, control", Control, partial(run_control, name, *self._task, head))
        return control.model_copy(update={"needed": needed_of_control(len(self.splits.task.labels), head)})

    @property
    def _seeds(self) -> range:
        return range(self.settings.seed, self.settings.seed + self.seeds)

    @property
    def _task(self) -> tuple[Payloads, Payloads, AttackSettings]:
        return self._asked(self.splits.task.labels, self.splits.train.task, self.splits.val.task)

    def _asked(
        self, labels: Sequence[str], known: datasets.Labels, truth: datasets.Labels
    ) -> tuple[Payloads, Payloads, AttackSettings]:
        """Ask the same payloads for something else: what leaked, what is answered for, and how."""
        return (
            replace(self.leaked, labels=known[: len(self.leaked)]),
            replace(self.target, labels=truth),
            replace(self.settings, classes=len(labels)),
        )

    def _payloads(self, name: str, pictures: datasets.LabelledPictures) -> Payloads:
        return self._collected.payloads(name, partial(collect, self.bundle, self.manifest, pictures))

    def _averages(self, name: str, counts: tuple[int, ...], *, moving: bool = False) -> list[Payloads]:
        pictures = {"train": self.splits.train, "val": self.splits.val}[name]
        names = [f"{name}, {count} frames{' of a moving face' if moving else ''}" for count in counts]
        return self._collected.many(
            names, partial(averages, self.bundle, self.manifest, pictures, counts, moving=moving)
        )

    @property
    def _collected(self) -> Notebook:
        return Notebook(self.work, self.manifest.contract.digest, self._shown)

    @property
    def _notebook(self) -> Notebook:
        return self._notebook_for(self.settings)

    def _notebook_for(self, *how: object) -> Notebook:
        return Notebook(self.work, self.manifest.contract.digest, *how, self._seen, attack_code())

    @cached_property
    def _shown(self) -> str:
        """Fingerprint of all pictures and their labels."""
        splits = (self.splits.train, self.splits.val)
        return fingerprint(*(array for split in splits for array in (split.pictures, split.sensitive, split.task)))

    @cached_property
    def _seen(self) -> str:
        """Fingerprint of what the adversaries learn from and answer for, labels included."""
        pairs = (self.leaked, self.target)
        return fingerprint(*(array for one in pairs for array in (one.channels, one.features, one.labels, one.answers)))
