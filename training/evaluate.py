"""``python -m training.evaluate --bundle DIR --data DIR``: what a bundle answers and what it betrays."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydantic import ValidationError

from dcp_sdk.bundles.bundle import MODEL_CARD_FILE, PRIVACY_REPORT_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.commands.errors import errors_in_words
from dcp_sdk.commands.tables import privacy_table
from dcp_sdk.errors import BundleError, ConfigError

from . import data as datasets
from .attacks import ATTACKS, RECONSTRUCTIONS, AttackSettings, SearchSettings
from .audit import Audit, Evidence
from .audit.certificate import is_covered_by_noise
from .audit.many_frames import require_noise
from .config import Recipe
from .console import console
from .metrics import hardware
from .reports import html_page, model_card

__all__ = ["attack_settings", "evaluate", "search_settings", "without_data"]

SEEDS = 3
FRAMES = (10, 100)
_QUICK_PAIRS = 3000


def evaluate(
    bundle: Path,
    repository: Path,
    folder: Path | None,
    *,
    attacks: list[str] | None = None,
    quick: bool = False,
    seed: int = 0,
    seeds: int = SEEDS,
    targets: int | None = None,
    frames: Sequence[int] = FRAMES,
    moving: Sequence[int] = FRAMES,
    work: Path | None = None,
    command: str = "training.evaluate.evaluate",
) -> PrivacyReport:
    """Measure a bundle; leave ``privacy_report.json`` and ``.html`` in it, and the results in its card.

    Args:
        bundle: Folder of the bundle.
        repository: Model repository with the paired head.
        folder: Root of the data set that the bundle's recipe describes.
        attacks: Names out of ``ATTACKS`` and ``RECONSTRUCTIONS``; None takes all.
        quick: Weaker adversaries and fewer pairs, for a first verdict: the report and its verdict say so.
        seed: First seed of the adversaries.
        seeds: How many; a quick look takes one.
        targets: Pictures that each search draws; None takes a few. More of them test the certificate harder.
        frames: Over how many frames of one picture a server averages, each measured by itself.
        moving: The same for frames of a face that moves. A quick look has none: the client network runs for each.
        work: Folder for results that a later call may take up where this one was cut off; None keeps none.
        command: Stands in the report.

    Raises:
        ConfigError: Unknown attack, no recipe in the bundle, the data do not fit, the bundle is an archive, or its
            noise is not what its manifest says.
        DCPError: As the client raises it.
    """
    known = [*ATTACKS, *RECONSTRUCTIONS]
    chosen = attacks or known
    if unknown := set(chosen) - set(known):
        raise ConfigError(f"attacks: expected some of {known}, got {sorted(unknown)}")
    if not set(chosen) & set(ATTACKS):
        raise ConfigError(f"attacks: a report needs an adversary, one of {list(ATTACKS)}, got {sorted(chosen)} alone")
    if bundle.is_file():  # said now, not after hours of attacks
        raise ConfigError(f"expected a bundle's folder, to write the report into, got the archive {bundle}. Unzip it.")
    if bundle.is_dir() and not os.access(bundle, os.W_OK):
        raise ConfigError(f"expected a bundle's folder that the report can be written into, got {bundle}, read-only")
    manifest = Manifest.load(bundle)
    recipe = _recipe(manifest, bundle)
    splits = datasets.shuffled(datasets.load(recipe.data, folder))
    _same_labels(splits, manifest)
    evidence = Evidence(bundle, manifest, splits, _QUICK_PAIRS if quick else None, work)
    audit = Audit(
        evidence=evidence,
        recipe=recipe,
        folder=folder,
        settings=attack_settings(recipe, len(splits.sensitive.labels), seed, quick=quick),
        search=search_settings(quick=quick, targets=targets),
        seeds=1 if quick else seeds,
        frames=tuple(sorted(set(frames))),
        moving=() if quick else tuple(sorted(set(moving))),
    )
    neck = recipe.network.bottleneck
    if neck is not None and is_covered_by_noise(manifest.contract, neck):
        require_noise(bundle, manifest.contract, neck.deviation)
    _forget_a_strangers_report(bundle, manifest)
    utility = audit.utility(repository)
    results, luck = audit.adversaries([name for name in ATTACKS if name in chosen], utility.balanced_accuracy.value)
    drawings, panels = audit.drawings([name for name in RECONSTRUCTIONS if name in chosen])
    report = PrivacyReport(
        contract_digest=manifest.contract.digest,
        sensitive=splits.sensitive.name,
        chance=1 / len(splits.sensitive.labels),
        majority=float(np.bincount(evidence.target.labels).max() / len(evidence.target)),
        leaked=len(evidence.leaked),
        tested=len(evidence.target),
        utility=utility,
        attacks=tuple(results),
        luck=luck,
        side_channels=audit.side_channels(repository),
        leaked_curve=audit.fewer_pairs(results),
        many_frames=tuple(audit.many_frames(results)),
        reconstructions=tuple(drawings),
        certificate=audit.certificate(),
        readout=audit.readout(),
        others=tuple(audit.others()),
        masks=audit.masks(),
        panels=panels,
        untried=tuple(name for name in ATTACKS if name not in chosen),
        quick=quick,
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=hardware(),
        command=command,
    )
    report.save(bundle)
    report = PrivacyReport.load(bundle, manifest.contract) or report  # as a client reads it
    (bundle / MODEL_CARD_FILE).write_text(model_card.render(manifest, report), encoding="utf-8")
    html_page.write(bundle, manifest, report)
    return report


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
        mirror=recipe.data.flip,
        trees=40 if quick else 200,
    )


def search_settings(*, quick: bool, targets: int | None = None) -> SearchSettings:
    """How long those search that look for one picture at a time, and for how many."""
    if quick:
        return SearchSettings(targets=targets or 2, steps=150, restarts=2, prior_steps=100)
    return SearchSettings(targets=targets or 8, steps=400, restarts=3, prior_steps=400)


def _same_labels(splits: datasets.Splits, manifest: Manifest) -> None:
    """Refuse data that name their classes otherwise: every figure would be about something else."""
    contract = manifest.contract
    for found, expected in ((splits.task, contract.task), (splits.sensitive, contract.sensitive)):
        if found != expected:
            raise ConfigError(
                f"the data do not fit the bundle: expected {expected.name} with labels {list(expected.labels)}, got "
                f"{found.name} with {list(found.labels)}. Pass the data set that {manifest.name} was trained for."
            )


def _forget_a_strangers_report(bundle: Path, manifest: Manifest) -> None:
    """Remove a report about other files: it keeps every client from opening the bundle, this measurement's own too."""
    try:
        PrivacyReport.load(bundle, manifest.contract)
    except BundleError:
        (bundle / PRIVACY_REPORT_FILE).unlink(missing_ok=True)


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
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"how many seeds; the strongest counts; {SEEDS} by default (--quick: 1)")
    ] = None,
    targets: Annotated[
        int | None, typer.Option(min=1, help="pictures that each search draws, 8 by default (--quick: 2)")
    ] = None,
    frames: Annotated[
        list[int] | None,
        typer.Option(min=2, help="how many frames a server averages, may be repeated; 10 and 100 by default"),
    ] = None,
    moving: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="the same for frames of a face that moves; 0 for none; 10 and 100 by default (--quick: 0)",
        ),
    ] = None,
    work: Annotated[Path, typer.Option(help="results of a run that was cut off are taken up from here")] = Path(
        "runs/evaluations"
    ),
) -> None:
    """Measure what a bundle answers and what fresh adversaries read from its payloads."""
    # The report is published; where somebody keeps faces is not.
    command = shlex.join(["python", "-m", "training.evaluate", *without_data(sys.argv[1:])])
    with errors_in_words():
        if quick and (seeds or any(moving or ())):
            raise ConfigError("--quick is one seed, and no moving face: leave out --seeds and --moving, or --quick")
        report = evaluate(
            bundle,
            model_repository,
            data,
            attacks=attacks,
            quick=quick,
            seed=seed,
            seeds=seeds or SEEDS,
            targets=targets,
            frames=frames or FRAMES,
            moving=FRAMES if moving is None else [count for count in moving if count],
            work=work,
            command=command,
        )
    console.print(report.verdict, style="green" if report.protected else "red")
    console.print(privacy_table(report))


def without_data(words: list[str]) -> list[str]:
    """Return a command's words with ``DIR`` for the folder of the data set, however it was written."""
    after = ["", *words[:-1]]
    return [
        "DIR" if before == "--data" else "--data=DIR" if word.startswith("--data=") else word
        for before, word in zip(after, words, strict=True)
    ]


if __name__ == "__main__":
    typer.run(_main)
