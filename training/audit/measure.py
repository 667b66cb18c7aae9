"""Let adversaries learn and answer, and put into figures what they read."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dcp_sdk.bundles.measurements import (
    LIKELIHOOD,
    AttackResult,
    Control,
    Interval,
    LeakedPoint,
    Luck,
    strongest_of,
)

from ..attacks import ATTACKS, ENSEMBLE, AttackSettings, Guess, together
from ..attacks.side_channels import answer_only
from ..metrics import (
    accuracy,
    balanced_accuracy,
    confusion,
    macro_auc,
)
from ..payloads import Payloads
from .permutation_test import permutation_test

__all__ = [
    "as_control",
    "judge",
    "leaked_curve",
    "measure_attack",
    "measure_many_frames",
    "most_exposing",
    "prior_entropy",
    "run_attack",
    "tries",
]


def measure_attack(
    name: str,
    leaked: Payloads,
    target: Payloads,
    settings: AttackSettings,
    labels: tuple[str, ...],
) -> AttackResult:
    """Train one adversary on ``leaked``, and :func:`judge` it on ``target``."""
    guesses = {str(settings.seed): run_attack(name, leaked, target, settings)}
    return judge(name, guesses, leaked, target, labels)


def tries(
    leaked: Payloads, target: Payloads, settings: AttackSettings, seeds: Sequence[int]
) -> list[tuple[str, Payloads, AttackSettings]]:
    """List how often an adversary tries, since the strongest try counts: a name, leaked pairs and settings for each.

    :meth:`Payloads.weights` keeps adversaries from answering by what goes together among the leaked pairs alone. Where
    answer and attribute go together among the attacked pictures, too, that costs them what the answer tells: there
    each seed learns once more, from pairs that are weighed by the attribute only.
    """
    weighed = {"": leaked}
    guess = answer_only(leaked, target, settings)
    if balanced_accuracy(guess.probabilities.argmax(1), target.labels).low > 1 / settings.classes:
        weighed[", with the answer"] = replace(leaked, answers=np.zeros_like(leaked.answers))
    return [(f"{seed}{way}", pairs, replace(settings, seed=seed)) for way, pairs in weighed.items() for seed in seeds]


def run_attack(name: str, leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Train one adversary and let it answer, on the clock."""
    started = time.monotonic()
    answers = ATTACKS[name](leaked, target, settings)
    return answers.model_copy(update={"minutes": (time.monotonic() - started) / 60})


def as_control(guess: Guess, target: Payloads, head: float) -> Control:
    """Judge what an adversary reads of the task, against what is needed.

    Args:
        guess: Its answers about the task.
        target: What it answered for, labelled with the task.
        head: Balanced accuracy of the task head.
    """
    read = balanced_accuracy(guess.probabilities.argmax(1), target.labels)
    guessing = 1 / len(np.unique(target.labels))
    beyond_luck = guessing + read.value - read.low
    return Control(balanced_accuracy=read, needed=max((guessing + head) / 2, beyond_luck))


def judge(
    name: str,
    guesses: Mapping[str, Guess],
    leaked: Payloads,
    target: Payloads,
    labels: tuple[str, ...],
    control: Control | None = None,
) -> AttackResult:
    """Put an adversary's answers into figures; the strongest try is reported.

    Args:
        name: Of the adversary.
        guesses: By seed, and how it weighed its pairs.
        leaked: What it learnt from.
        target: What it answered for.
        labels: Names of the groups.
        control: Of an adversary that did not train.
    """
    answers = {key: each.probabilities.argmax(1) for key, each in guesses.items()}
    shares = {key: balanced_accuracy(answer, target.labels).value for key, answer in answers.items()}
    strongest = max(shares, key=lambda key: shares[key])
    best, answer = guesses[strongest], answers[strongest]
    # Another try than the one that answers best may rank best: that tells as much.
    rankings = [macro_auc(each.probabilities, target.labels) for each in guesses.values()]
    ranking = max((each for each in rankings if each is not None), default=None)
    return AttackResult(
        name=name,
        balanced_accuracy=balanced_accuracy(answer, target.labels),
        accuracy=accuracy(answer, target.labels),
        recalls={
            label: float((answer[chosen] == number).mean())
            for number, label in enumerate(labels)
            if (chosen := target.labels == number).any()
        },
        training_loss=best.training_loss,
        held_out_loss=best.held_out_loss,
        prior_entropy=prior_entropy(leaked),
        minutes=round(sum(each.minutes for each in guesses.values()), 1),
        auc=ranking and ranking[0],
        auc_error=ranking and ranking[1],
        how=best.how,
        confusion=confusion(answer, target.labels, labels),
        seeds={key: round(share, 4) for key, share in shares.items()},
        control=control,
    )


def prior_entropy(leaked: Payloads) -> float:
    """Cross-entropy of guessing, in nats: the groups that occur count alike (:meth:`Payloads.weights`)."""
    return math.log(len(np.unique(leaked.labels)))


def measure_many_frames(
    leaked: Payloads,
    target: Payloads,
    settings: AttackSettings,
    labels: tuple[str, ...],
    names: Sequence[str],
    seeds: Sequence[int],
    knows_noise: Callable[[Payloads], Guess] | None,
) -> tuple[list[AttackResult], Luck | None]:
    """Let adversaries learn from averages over many frames, and answer for such averages.

    Args:
        leaked: What leaked, averaged.
        target: What they answer for, averaged.
        settings: How hard they try.
        labels: Names of the groups.
        names: Of the adversaries; all of them count.
        seeds: Of each.
        knows_noise: Who answers from as many frames of the same pictures without learning, but from others: so that it
            must not answer together with the rest, who would then have seen twice as many.

    Returns:
        What each of them reads, and what the strongest would read by luck.
    """
    each = tries(leaked, target, settings, seeds)
    named = {name: {key: run_attack(name, pairs, target, how) for key, pairs, how in each} for name in names}
    if (mean := together([guess for by_seed in named.values() for guess in by_seed.values()])) is not None:
        named[ENSEMBLE] = {str(settings.seed): mean}
    if knows_noise is not None:
        once = tries(leaked, target, settings, [settings.seed])
        named[LIKELIHOOD] = {key: knows_noise(pairs) for key, pairs, _ in once}
    results = [judge(name, by_seed, leaked, target, labels) for name, by_seed in named.items()]
    return results, permutation_test([list(by_seed.values()) for by_seed in named.values()], target.labels, labels)


def most_exposing(results: Sequence[AttackResult]) -> dict[str, Interval]:
    """Return the exposure of each group by whoever exposes it most."""
    most: dict[str, Interval] = {}
    for result in results:
        for group, exposure in result.exposures.items():
            most[group] = max(exposure, most.get(group, exposure), key=lambda each: each.value)
    return most


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
        result = measure_attack(strongest.name, few, target, settings, labels)
        points.append(LeakedPoint(pairs=len(few), attack=strongest.name, balanced_accuracy=result.balanced_accuracy))
    whole = LeakedPoint(pairs=len(leaked), attack=strongest.name, balanced_accuracy=strongest.balanced_accuracy)
    return (*points, whole)
