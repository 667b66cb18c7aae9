"""``python -m training.evaluate --bundle DIR --data DIR``: what a bundle answers and what it betrays."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydantic import ValidationError
from rich.console import Console

from dcp_sdk.bundle import MODEL_CARD_FILE
from dcp_sdk.contract import Manifest
from dcp_sdk.errors import ConfigError, DCPError
from dcp_sdk.privacy_report import AttackResult, PrivacyReport, Reconstruction, percent
from dcp_sdk.tables import privacy_table

from . import data as datasets
from .attacks import (
    ATTACKS,
    ENSEMBLE,
    RECONSTRUCTIONS,
    AttackSettings,
    Guess,
    Knowledge,
    SearchSettings,
    together,
)
from .attacks.reconstruction import Pictures
from .config import Recipe
from .measure import (
    judge,
    leaked_curve,
    measure_reconstruction,
    measure_side_channels,
    measure_utility,
    prior_entropy,
    run_attack,
)
from .metrics import hardware
from .notebook import Notebook
from .payloads import Payloads, collect
from .reports import html_page, model_card
from .reports.panels import as_panels, panel_payloads, panel_pictures

__all__ = ["attack_settings", "evaluate", "search_settings"]

SEEDS = 3
_QUICK_PAIRS = 3000

console = Console(stderr=True, highlight=False)


def evaluate(
    bundle: Path,
    repository: Path,
    folder: Path | None,
    *,
    attacks: list[str] | None = None,
    quick: bool = False,
    seed: int = 0,
    seeds: int = SEEDS,
    work: Path | None = None,
    command: str = "training.evaluate.evaluate",
) -> PrivacyReport:
    """Measure a bundle; leave ``privacy_report.json`` and ``.html`` in it, and the results in its card.

    The training split is what leaked; the adversaries are judged on the validation split.

    Args:
        bundle: Folder of the bundle.
        repository: Model repository with the paired head.
        folder: Root of the data set that the bundle's recipe describes.
        attacks: Names out of ``ATTACKS``; None takes all.
        quick: Weaker adversaries and fewer pairs, for a first verdict: the report says so in its command.
        seed: First seed of the adversaries.
        seeds: How many; a quick look takes one.
        work: Folder for results that a later call may take up where this one was cut off; None keeps none.
        command: Stands in the report.

    Raises:
        ConfigError: Unknown attack, no recipe in the bundle, the data do not fit, or the bundle is an archive.
        DCPError: As the client raises it.
    """
    known = [*ATTACKS, *RECONSTRUCTIONS]
    chosen = attacks or known
    if unknown := set(chosen) - set(known):
        raise ConfigError(f"attacks: expected some of {known}, got {sorted(unknown)}")
    if bundle.is_file():  # said now, not after hours of attacks
        raise ConfigError(f"expected a bundle's folder, to write the report into, got the archive {bundle}. Unzip it.")
    manifest = Manifest.load(bundle)
    recipe = _recipe(manifest, bundle)
    splits = datasets.load(recipe.data, folder)
    utility = measure_utility(bundle, repository, splits)
    console.print(f"{manifest.name}: {manifest.contract.task.name} {percent(utility.balanced_accuracy)}")
    payloads = Notebook(work, manifest.contract.digest, splits.train.sensitive.tolist(), splits.val.sensitive.tolist())
    leaked, target = (
        payloads.payloads(name, partial(collect, bundle, manifest, split))
        for name, split in (("train", splits.train), ("val", splits.val))
    )
    if quick:
        leaked = leaked[np.arange(min(len(leaked), _QUICK_PAIRS))]
    settings = attack_settings(recipe, len(splits.sensitive.labels), seed, quick=quick)
    labels = splits.sensitive.labels
    names = [name for name in ATTACKS if name in chosen]
    notebook = Notebook(work, manifest.contract.digest, settings, len(leaked), target.labels.tolist())
    results = _read(names, leaked, target, settings, labels, 1 if quick else seeds, notebook)
    search = search_settings(quick=quick)
    shown, origin = panel_pictures(recipe.data, splits)
    panels = as_panels(shown, origin)
    notebook = Notebook(work, manifest.contract.digest, settings, search, panels, len(leaked), target.labels.tolist())
    reconstructions = _draw(
        [name for name in RECONSTRUCTIONS if name in chosen],
        Knowledge(bundle, manifest.contract, leaked, splits.train.pictures[: len(leaked)], settings, search),
        target,
        splits.val.pictures,
        panel_payloads(bundle, manifest, shown),
        notebook,
    )
    side_channels = measure_side_channels(bundle, manifest, splits, leaked, target, settings)
    report = PrivacyReport(
        contract_digest=manifest.contract.digest,
        sensitive=splits.sensitive.name,
        chance=1 / len(splits.sensitive.labels),
        majority=float(np.bincount(target.labels).max() / len(target)),
        leaked=len(leaked),
        tested=len(target),
        utility=utility,
        attacks=tuple(results),
        side_channels=side_channels,
        leaked_curve=leaked_curve(results, leaked, target, settings, labels),
        reconstructions=tuple(reconstructions),
        panels=panels if reconstructions else None,
        quick=quick,
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=hardware(),
        command=command,
    )
    report.save(bundle)
    (bundle / MODEL_CARD_FILE).write_text(model_card.render(manifest, report), encoding="utf-8")
    html_page.write(bundle, manifest, report)
    return report


def _read(
    names: Sequence[str],
    leaked: Payloads,
    target: Payloads,
    settings: AttackSettings,
    labels: tuple[str, ...],
    seeds: int,
    notebook: Notebook,
) -> list[AttackResult]:
    """Let each adversary learn and answer with each seed, and then all of them together."""
    guesses: list[Guess] = []
    results: list[AttackResult] = []

    def add(name: str, by_seed: dict[int, Guess]) -> None:
        results.append(judge(name, by_seed, leaked, target, labels))
        result = results[-1]
        console.print(f"{name}: {percent(result.balanced_accuracy)} ({result.how}; {result.minutes} min)")

    for name in names:
        by_seed = {
            seed: notebook.once(
                f"{name}, seed {seed}", Guess, partial(run_attack, name, leaked, target, replace(settings, seed=seed))
            )
            for seed in range(settings.seed, settings.seed + seeds)
        }
        guesses += by_seed.values()
        add(name, by_seed)
    mean = together(guesses, prior_entropy(leaked, len(labels)))
    if mean is not None:
        add(ENSEMBLE, {settings.seed: mean})
    return results


def _draw(
    names: Sequence[str],
    knowledge: Knowledge,
    target: Payloads,
    hidden: Pictures,
    panels: Payloads,
    notebook: Notebook,
) -> list[Reconstruction]:
    """Let each reconstruction draw the pictures behind ``target``."""
    drawings = []
    for name in names:
        draw = partial(measure_reconstruction, name, knowledge, target, hidden, panels)
        drawings.append(notebook.once(name, Reconstruction, draw))
        console.print(f"{name} draws the picture: SSIM {drawings[-1].ssim:.2f}, {drawings[-1].psnr_db:.1f} dB")
    return drawings


def attack_settings(recipe: Recipe, classes: int, seed: int, *, quick: bool) -> AttackSettings:
    """How hard the adversaries try."""
    return AttackSettings(
        network=recipe.network,
        classes=classes,
        seed=seed,
        epochs=4 if quick else 12,
        decoder_epochs=1 if quick else 8,
        patience=2 if quick else 5,
        search_epochs=1 if quick else 3,
        search_pairs=1000 if quick else 2500,
        trees=40 if quick else 200,
    )


def search_settings(*, quick: bool) -> SearchSettings:
    """How long those search that look for one picture at a time."""
    if quick:
        return SearchSettings(targets=4, steps=200, restarts=2, prior_steps=150)
    return SearchSettings(targets=8, steps=400, restarts=3, prior_steps=400)


def _recipe(manifest: Manifest, bundle: Path) -> Recipe:
    try:
        return Recipe.model_validate(manifest.provenance.settings)
    except ValidationError as error:
        raise ConfigError(
            f"{bundle}: expected a recipe under provenance.settings of its manifest, got {error.errors()[0]['msg']}. "
            "Export the bundle again."
        ) from error


def _main(
    bundle: Annotated[Path, typer.Option(help="folder of the bundle; report and card are written there")],
    data: Annotated[Path | None, typer.Option(help="root of the data set")] = None,
    model_repository: Annotated[Path, typer.Option(help="holds the paired head")] = Path("triton_models"),
    attacks: Annotated[
        list[str] | None, typer.Option(help="name of an attack, may be repeated; all by default")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="weaker adversaries, fewer pairs, a first verdict")] = False,
    seed: Annotated[int, typer.Option(help="first of the adversaries' seeds")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds; the strongest counts")] = SEEDS,
    work: Annotated[Path, typer.Option(help="results of a run that was cut off are taken up from here")] = Path(
        "runs/evaluations"
    ),
) -> None:
    """Measure what a bundle answers and what fresh adversaries read from its payloads."""
    # The report is published; where somebody keeps faces is not.
    words = ["DIR" if data is not None and word == str(data) else word for word in sys.argv[1:]]
    command = shlex.join(["python", "-m", "training.evaluate", *words])
    try:
        report = evaluate(
            bundle,
            model_repository,
            data,
            attacks=attacks,
            quick=quick,
            seed=seed,
            seeds=seeds,
            work=work,
            command=command,
        )
    except DCPError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}", soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(report.verdict, style="green" if report.protected else "red")
    console.print(privacy_table(report))


if __name__ == "__main__":
    typer.run(_main)
