"""Put one thing about a bundle into figures: what it answers, what an adversary reads, what a decoder draws."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dcp_sdk import PrivateClient, Timeouts
from dcp_sdk.manifest import Manifest
from dcp_sdk.measurements import (
    AttackResult,
    Control,
    FramesPoint,
    GroupResult,
    Interval,
    LeakedPoint,
    Reconstruction,
    SideChannel,
    Utility,
    strongest_of,
)

from ..attacks import ATTACKS, ENSEMBLE, RECONSTRUCTIONS, SEARCHES, AttackSettings, Guess, Knowledge, together
from ..attacks.picture_classifier import as_payloads, picture_classifier
from ..attacks.reconstruction import Pictures
from ..attacks.side_channels import latency, mask_only
from ..data import Splits
from ..metrics import (
    accuracy,
    balanced_accuracy,
    balanced_answers,
    confusion,
    macro_auc,
    perceptual_distance,
    similarity,
)
from ..payloads import Payloads, device_ms
from ..reports.panels import png

__all__ = [
    "judge",
    "leaked_curve",
    "measure_attack",
    "measure_many_frames",
    "measure_reconstruction",
    "measure_side_channels",
    "measure_utility",
    "prior_entropy",
    "run_attack",
    "run_control",
]

_PATIENCE_S = 600.0
"""An audit runs for hours on a busy machine, and nobody waits for one of its answers."""
_TIMED = 2000
"""Pictures of each split whose device graph is timed."""
_READ_PAIRS = 4000
"""Leaked pairs at most from which the attribute is learnt as pictures and drawings show it."""
_READ_EPOCHS = 10


def measure_utility(bundle: Path, repository: Path, splits: Splits) -> Utility:
    """Let :class:`dcp_sdk.PrivateClient` answer for every validation picture.

    Args:
        bundle: Folder of the bundle.
        repository: Model repository with the paired head.
        splits: The data.
    """
    patient = Timeouts(connect_s=_PATIENCE_S, predict_s=_PATIENCE_S)
    with PrivateClient(bundle, f"memory://{repository}", timeouts=patient) as client:
        predictions = client.predict_batch(splits.val.pictures)
    numbers = {label: number for number, label in enumerate(splits.task.labels)}
    answers = np.array([numbers[prediction.label] for prediction in predictions])
    groups = [
        GroupResult(
            attribute=splits.sensitive.name,
            label=label,
            pictures=int(chosen.sum()),
            balanced_accuracy=balanced_accuracy(answers[chosen], splits.val.task[chosen]),
        )
        for number, label in enumerate(splits.sensitive.labels)
        if (chosen := splits.val.sensitive == number).any()
    ]
    overall = balanced_accuracy(answers, splits.val.task)
    return Utility(
        pictures=len(answers),
        balanced_accuracy=overall,
        groups=tuple(groups),
        confusion=confusion(answers, splits.val.task, splits.task.labels),
    )


def measure_attack(
    name: str,
    leaked: Payloads,
    target: Payloads,
    settings: AttackSettings,
    labels: tuple[str, ...],
    seeds: Sequence[int] = (0,),
) -> AttackResult:
    """Train one adversary on ``leaked`` with each seed, and :func:`judge` it on ``target``."""
    guesses = {seed: run_attack(name, leaked, target, replace(settings, seed=seed)) for seed in seeds}
    return judge(name, guesses, leaked, target, labels)


def run_attack(name: str, leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Train one adversary and let it answer, on the clock."""
    started = time.monotonic()
    answers = ATTACKS[name](leaked, target, settings)
    return answers.model_copy(update={"minutes": (time.monotonic() - started) / 60})


def run_control(name: str, leaked: Payloads, target: Payloads, settings: AttackSettings, head: float) -> Control:
    """Let one adversary read the task instead, with the same settings.

    Args:
        name: Of the adversary.
        leaked: What leaked, labelled with the task.
        target: What it answers for, labelled with the task.
        settings: With the number of task classes.
        head: Balanced accuracy of the task head.
    """
    guess = ATTACKS[name](leaked, target, settings)
    answers = balanced_answers(guess.probabilities, leaked.frequencies(settings.classes))
    return Control(
        balanced_accuracy=balanced_accuracy(answers, target.labels), needed=(1 / settings.classes + head) / 2
    )


def judge(
    name: str,
    guesses: Mapping[int, Guess],
    leaked: Payloads,
    target: Payloads,
    labels: tuple[str, ...],
    control: Control | None = None,
) -> AttackResult:
    """Put an adversary's answers into figures; the strongest seed is reported.

    Args:
        name: Of the adversary.
        guesses: By seed.
        leaked: What it learnt from: groups of unequal size are allowed for.
        target: What it answered for.
        labels: Names of the groups.
        control: Of an adversary that did not train.
    """
    frequencies = leaked.frequencies(len(labels))
    answers = {seed: balanced_answers(each.probabilities, frequencies) for seed, each in guesses.items()}
    shares = {seed: balanced_accuracy(answer, target.labels).value for seed, answer in answers.items()}
    seed = max(shares, key=lambda seed: shares[seed])
    best, answer = guesses[seed], answers[seed]
    return AttackResult(
        name=name,
        balanced_accuracy=balanced_accuracy(answer, target.labels),
        accuracy=accuracy(best.probabilities.argmax(1), target.labels),
        recalls={
            label: float((answer[chosen] == number).mean())
            for number, label in enumerate(labels)
            if (chosen := target.labels == number).any()
        },
        training_loss=best.training_loss,
        prior_entropy=prior_entropy(leaked, len(labels)),
        minutes=round(sum(each.minutes for each in guesses.values()), 1),
        auc=macro_auc(best.probabilities, target.labels),
        how=best.how,
        confusion=confusion(answer, target.labels, labels),
        seeds={str(seed): round(share, 4) for seed, share in shares.items()},
        control=control,
    )


def prior_entropy(leaked: Payloads, classes: int) -> float:
    """Cross-entropy of always answering the groups' frequencies, in nats."""
    present = leaked.frequencies(classes)
    present = present[present > 0]
    return float(-(present * np.log(present)).sum())


def measure_reconstruction(
    name: str, knowledge: Knowledge, target: Payloads, hidden: Pictures, panels: Payloads
) -> Reconstruction:
    """Let one attack draw the pictures behind ``target``, and compare them with the pictures ``hidden`` from it.

    Args:
        name: Out of ``RECONSTRUCTIONS``. One of ``SEARCHES`` draws the first few targets only; the sensitive attribute
            is then not read from its drawings, since the interval would say nothing.
        knowledge: The attacker's.
        target: M payloads never seen.
        hidden: What they came from, uint8 ``(M, S, S, 3)``.
        panels: Payloads of the pictures that the report shows.
    """
    if name in SEARCHES:
        few = np.arange(min(knowledge.search.targets, len(target)))
        target, hidden, known = target[few], hidden[few], knowledge.leaked[few[:0]]
    else:
        known = knowledge.leaked[np.arange(min(_READ_PAIRS, len(knowledge.leaked)))]
    everything = RECONSTRUCTIONS[name](knowledge, target + panels + known)
    drawn, shown, learnt = np.split(everything, [len(target), len(target) + len(panels)])
    likeness, decibels = similarity(drawn, hidden)
    mean = np.broadcast_to(knowledge.pictures.mean(axis=0).round().astype(np.uint8), hidden.shape)
    from_drawings, from_pictures = (
        _read_attribute(knowledge, learnt, target, drawn, hidden) if len(known) else (None, None)
    )
    return Reconstruction(
        name=name,
        pictures=len(target),
        ssim=likeness,
        psnr_db=decibels,
        mse=float(np.square(drawn.astype(np.float32) / 255 - hidden.astype(np.float32) / 255).mean()),
        mean_picture_ssim=similarity(np.ascontiguousarray(mean), hidden)[0],
        lpips=perceptual_distance(drawn, hidden),
        attribute=from_drawings,
        pictures_attribute=from_pictures,
        panels=tuple(map(png, shown)),
    )


def _read_attribute(
    knowledge: Knowledge, learnt: Pictures, target: Payloads, drawn: Pictures, hidden: Pictures
) -> tuple[Interval, Interval]:
    """Balanced accuracy on the drawings, of the better of two classifiers, and on the pictures.

    One has learnt from the leaked pictures, the other from drawings of the leaked payloads, and so knows the drawer's
    habits.
    """
    settings = replace(knowledge.settings, epochs=min(_READ_EPOCHS, knowledge.settings.epochs), search_epochs=1)
    labels, truth = knowledge.leaked.labels[: len(learnt)], target.labels
    both = as_payloads(np.concatenate([hidden, drawn]), np.concatenate([truth, truth]))
    from_pictures = picture_classifier(as_payloads(knowledge.pictures[: len(learnt)], labels), both, settings)
    from_drawings = picture_classifier(as_payloads(learnt, labels), as_payloads(drawn, truth), settings)
    frequencies = knowledge.leaked[np.arange(len(learnt))].frequencies(settings.classes)
    seen, transferred = np.split(balanced_answers(from_pictures.probabilities, frequencies), 2)
    answers = (transferred, balanced_answers(from_drawings.probabilities, frequencies))
    read = max((balanced_accuracy(answer, truth) for answer in answers), key=lambda share: share.value)
    return read, balanced_accuracy(seen, truth)


def measure_side_channels(
    bundle: Path,
    manifest: Manifest,
    splits: Splits,
    leaked: Payloads,
    target: Payloads,
    settings: AttackSettings,
) -> tuple[SideChannel, ...]:
    """Judge the mask alone, and the device graph's latency. The payload's length is a constant of the contract."""
    times = [
        (device_ms(bundle, manifest, split.pictures[:_TIMED]), split.sensitive[:_TIMED])
        for split in (splits.train, splits.val)
    ]
    guesses = {
        "mask only": (mask_only(leaked, target, settings), target.labels),
        "latency of the device graph": (latency(times[0], times[1], settings), times[1][1]),
    }
    frequencies = leaked.frequencies(settings.classes)
    return tuple(
        SideChannel(
            name=name,
            balanced_accuracy=balanced_accuracy(balanced_answers(guess.probabilities, frequencies), truth),
            chance=1 / settings.classes,
        )
        for name, (guess, truth) in guesses.items()
    )


def measure_many_frames(
    frames: int,
    leaked: Payloads,
    target: Payloads,
    settings: AttackSettings,
    labels: tuple[str, ...],
    names: Sequence[str],
) -> FramesPoint:
    """Let adversaries learn from averages over many frames, and answer for such averages.

    Args:
        frames: In each average.
        leaked: What leaked, averaged.
        target: What they answer for, averaged.
        settings: How hard they try.
        labels: Names of the groups.
        names: Of the adversaries; all of them count.
    """
    guesses = [run_attack(name, leaked, target, settings) for name in names]
    named = dict(zip(names, guesses, strict=True))
    if (mean := together(guesses)) is not None:
        named[ENSEMBLE] = mean
    results = [judge(name, {settings.seed: guess}, leaked, target, labels) for name, guess in named.items()]
    best = max(results, key=lambda result: result.balanced_accuracy.value)
    return FramesPoint(frames=frames, attack=best.name, balanced_accuracy=best.balanced_accuracy)


def leaked_curve(
    results: Sequence[AttackResult],
    leaked: Payloads,
    target: Payloads,
    settings: AttackSettings,
    labels: tuple[str, ...],
) -> tuple[LeakedPoint, ...]:
    """Repeat the strongest single adversary with 1 % and 10 % of the pairs."""
    strongest = strongest_of([result for result in results if result.name in ATTACKS])
    if strongest is None:
        return ()
    points = []
    for share in (0.01, 0.1):
        few = leaked[np.random.default_rng(settings.seed).permutation(len(leaked))[: round(share * len(leaked))]]
        if len(few) < 4 * settings.classes:
            continue
        result = measure_attack(strongest.name, few, target, settings, labels, (settings.seed,))
        points.append(LeakedPoint(pairs=len(few), attack=strongest.name, balanced_accuracy=result.balanced_accuracy))
    whole = LeakedPoint(pairs=len(leaked), attack=strongest.name, balanced_accuracy=strongest.balanced_accuracy)
    return (*points, whole)
