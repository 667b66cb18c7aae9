"""``python -m training.experiments --suite paper --data utkface=DIR …``: train, export and attack every row of a suite.

What is done is skipped, what was cut off goes on. Each row is one JSON file under ``docs/results``, and the tables of
``docs/results.md`` are made from these files alone.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import typer
import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.commands.errors import errors_in_words, show_error
from dcp_sdk.errors import ConfigError, DCPError
from dcp_sdk.serving.repository import ModelRepository

from .attacks import ATTACKS
from .config import Recipe
from .console import console
from .reports.results import DOCUMENT, RESULTS, Row, rows_of, write_tables
from .run_folder import CHECKPOINT_FILE

__all__ = ["Experiment", "experiments_of", "is_exported", "run"]

ROOT = Path(__file__).parents[1]
SUITES = Path(__file__).parent / "suites"
app = typer.Typer(pretty_exceptions_show_locals=False)

Effort = Literal["quick", "row", "drawn"]
"""``row``: every adversary with one seed, one frame and averages of 100; ``drawn``: averages of 10, those of a moving
face and reconstructions, too; ``quick``: a first look that never says that anything is protected."""


class _Entry(BaseModel):
    """Lines of a suite file: a defence at some ratios with some seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    defense: str
    recipe: str
    data: str
    ratios: tuple[float, ...] = (0.0,)
    seeds: tuple[int, ...] = (0,)
    set: tuple[str, ...] = ()
    variant: str = ""
    """Tells rows apart that differ in ``set`` alone; ends their names."""
    effort: Effort = "row"


class Experiment(BaseModel):
    """One row to come."""

    model_config = ConfigDict(frozen=True)

    name: str
    defense: str
    variant: str = ""
    base: str
    """Name of the recipe that it varies."""
    overrides: tuple[str, ...]
    data: str
    """Which of the data sets given on the command line it reads."""
    effort: Effort = "row"

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        return Recipe.load(self.base, self.overrides)

    def commands(self, home: Path) -> list[list[str]]:
        """Return the commands that make the row, with ``DIR`` for the folder of the data set: anyone can type them.

        Args:
            home: Folder for checkpoint, bundle and head.
        """
        run, bundle, repository = (str(home / part) for part in ("run", "bundle", "triton_models"))
        changes = [word for override in self.overrides for word in ("--set", override)]
        readers = [word for attack in ATTACKS for word in ("--attacks", attack)]
        efforts = {
            "quick": ["--quick", *readers],
            "row": ["--seeds", "1", "--frames", "100", "--moving", "0", *readers],
            "drawn": ["--seeds", "1"],
        }
        pair = ["--bundle", bundle, "--model-repository", repository, "--data", "DIR"]
        return [
            ["python", "-m", "training.train", "--recipe", self.base, *changes, "--out", run, "--data", "DIR"],
            ["python", "export/to_onnx.py", f"{run}/{CHECKPOINT_FILE}", *pair, "--name", self.name, "--force"],
            ["python", "-m", "training.evaluate", *pair, *efforts[self.effort]],
        ]

    def is_done(self, row: Row) -> bool:
        """Say whether ``row`` is this one: trained by the same recipe, and attacked with as much effort."""
        try:
            same = Recipe.model_validate(row.settings) == self.recipe
        except ValidationError:  # of a recipe as it was before
            return False
        drawn = self.effort != "drawn" or bool(row.report.reconstructions)
        return same and drawn and row.report.quick == (self.effort == "quick")


def experiments_of(suite: str | Path) -> list[Experiment]:
    """Read a suite: a YAML file, or the name of one in ``training/suites``.

    Raises:
        ConfigError: It is missing, or an entry makes no sense.
    """
    path = Path(suite) if Path(suite).exists() else SUITES / f"{suite}.yaml"
    try:
        entries = TypeAdapter(list[_Entry]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        known = ", ".join(sorted(p.stem for p in SUITES.glob("*.yaml")))
        raise ConfigError(f"expected a suite at {path}: {error}. Suites here: {known}") from error
    found = [experiment for entry in entries for experiment in _experiments(entry)]
    names = [experiment.name for experiment in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: rows appear twice: {twice}")
    return found


def _experiments(entry: _Entry) -> Iterator[Experiment]:
    for ratio in entry.ratios:
        for seed in entry.seeds:
            variant = f"-{entry.variant}" if entry.variant else ""
            name = f"{entry.recipe}-{entry.defense}-r{round(100 * ratio):02d}-s{seed}{variant}"
            overrides = (*entry.set, f"pruning.ratio={ratio}", f"seed={seed}", f"name={name}")
            experiment = Experiment(
                name=name,
                defense=entry.defense,
                variant=entry.variant,
                base=entry.recipe,
                overrides=overrides,
                data=entry.data,
                effort=entry.effort,
            )
            recipe = experiment.recipe
            trained = recipe.defense.name if recipe.defense else recipe.pruning.rule
            if trained != entry.defense:
                raise ConfigError(f"{name}: calls itself {entry.defense!r}, but its settings train {trained!r}")
            yield experiment


def run(experiment: Experiment, folder: Path, runs: Path, threads: int | None) -> Row:
    """Train, export and attack one row, each in a process of its own. What was cut off goes on where it was.

    A bundle and head that lie there already, made elsewhere (on a machine with a GPU, say), are attacked as they are.

    Args:
        experiment: The row.
        folder: Root of its data set.
        runs: Holds checkpoints, bundles and heads, one folder per row.
        threads: That each process uses; None leaves it to the environment.

    Raises:
        ConfigError: A step failed; what it printed stands above.
    """
    home = runs / experiment.name
    environment = os.environ if threads is None else os.environ | {"OMP_NUM_THREADS": str(threads)}
    seconds = []
    commands = experiment.commands(home)
    for command in commands[2:] if is_exported(experiment, home) else commands:
        words = [{"DIR": str(folder), "python": sys.executable}.get(word, word) for word in command]
        started = time.monotonic()
        done = subprocess.run(words, cwd=ROOT, env=environment, check=False)
        if done.returncode != 0:
            raise ConfigError(f"{experiment.name}: {command[:3]} ended with {done.returncode}; see above")
        seconds.append(time.monotonic() - started)
    manifest = Manifest.load(home / "bundle")
    report = PrivacyReport.load(home / "bundle", manifest.contract)
    assert report is not None  # the last command wrote it
    typed = [shlex.join(command) for command in experiment.commands(Path("runs") / experiment.name)]
    return Row(
        name=experiment.name,
        configuration=experiment.base,
        defense=experiment.defense,
        variant=experiment.variant,
        ratio=manifest.contract.pruning.ratio,
        seed=manifest.provenance.seed,
        settings=manifest.provenance.settings,
        payload_bytes=manifest.contract.payload_bytes,
        training_hours=manifest.provenance.hours,
        attack_hours=round(seconds[-1] / 3600, 2),
        commit=manifest.provenance.commit,
        commands=tuple(typed),
        report=report.model_copy(update={"command": typed[-1]}),  # without the folders of this machine
    )


def is_exported(experiment: Experiment, home: Path) -> bool:
    """Say whether the bundle of this row lies there, and its head beside it."""
    try:
        manifest = Manifest.load(home / "bundle")
        same = Recipe.model_validate(manifest.provenance.settings) == experiment.recipe
    except (DCPError, ValidationError):
        return False
    return same and not any(ModelRepository(home / "triton_models").verify([manifest.contract]))


@app.command()
def _main(
    suite: Annotated[str, typer.Option(help="name of one in training/suites, or a YAML file")] = "paper",
    data: Annotated[list[str] | None, typer.Option(help="NAME=DIR for each data set that the suite names")] = None,
    only: Annotated[list[str] | None, typer.Option(help="name of a row, may be repeated; all by default")] = None,
    runs: Annotated[Path, typer.Option(help="checkpoints, bundles, heads")] = Path("runs/experiments"),
    results: Annotated[Path, typer.Option(help="one JSON file per row that is done")] = RESULTS,
    tables: Annotated[Path, typer.Option(help="document whose tables are rewritten at the end")] = DOCUMENT,
    jobs: Annotated[int, typer.Option(min=1, help="rows at a time; they share the cores")] = 1,
) -> None:
    """Run what is missing of a suite; without --data, list it."""
    failed: list[str] = []

    def one(experiment: Experiment) -> None:
        try:
            threads = None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)
            run(experiment, Path(folders[experiment.data]).resolve(), runs.resolve(), threads).save(results)
            console.print(f"{experiment.name}: done")
        except DCPError as error:  # the others can still be measured
            failed.append(experiment.name)
            show_error(error)

    with errors_in_words():
        folders = _folders(data or [])
        experiments = _chosen(experiments_of(suite), only or [])
        done = {row.name: row for row in rows_of(results)}
        running = []
        with ThreadPoolExecutor(jobs) as pool:
            for experiment in experiments:
                row = done.get(experiment.name)
                if row is not None and experiment.is_done(row):
                    console.print(f"{experiment.name}: done, {row.report.verdict}", soft_wrap=True)
                elif experiment.data not in folders:
                    console.print(f"{experiment.name}: missing, needs --data {experiment.data}=DIR", soft_wrap=True)
                else:
                    running.append(pool.submit(one, experiment))
        if folders:
            write_tables(rows_of(results), tables)
        for future in running:
            future.result()  # what nobody foresaw is shown, after the others
    if failed:
        console.print(f"failed: {', '.join(failed)}", style="red")
        raise typer.Exit(1)


def _folders(given: Sequence[str]) -> dict[str, str]:
    folders = {}
    for pair in given:
        name, separator, folder = pair.partition("=")
        if not (name and separator and folder):
            raise ConfigError(f"--data: expected NAME=DIR, got {pair!r}")
        folders[name] = folder
    return folders


def _chosen(experiments: Sequence[Experiment], only: Sequence[str]) -> list[Experiment]:
    if unknown := set(only) - {experiment.name for experiment in experiments}:
        names = ", ".join(experiment.name for experiment in experiments)
        raise ConfigError(f"--only: expected names of this suite, got {sorted(unknown)}. It has {names}")
    return [experiment for experiment in experiments if not only or experiment.name in only]


if __name__ == "__main__":
    app()
