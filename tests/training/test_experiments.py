"""A suite trains, exports and attacks its rows, skips what is done, and keeps going past a row that fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dcp_sdk.errors import ConfigError
from training.defenses import DEFENSES
from training.experiments import app, experiments_of, is_exported
from training.reports.results import DOCUMENT, RESULTS, rows_of, tables, write_tables

FEW = (
    "set: [data.generated_pictures=96, network.split=6, optim.epochs=1, optim.batch_size=32, pruning.rule=none], "
    "effort: quick"
)
MARKS = "before\n<!-- rows: written by training.experiments -->\nold\n<!-- end of rows -->\nafter\n"


def test_the_papers_suite_holds_what_the_paper_reports() -> None:
    rows = experiments_of("paper")
    first = [row for row in rows if row.base == "utkface_gender_64"]
    assert {row.defense for row in first} == set(DEFENSES) - {"latent_pruning"}
    for rule in ("random", "dynamic"):
        assert {row.recipe.pruning.ratio for row in first if row.defense == rule} == {0.5, 0.7, 0.9, 0.95, 0.99}
        at_one_ratio = [row for row in first if row.defense == rule and row.recipe.pruning.ratio == 0.9]
        assert {row.recipe.seed for row in at_one_ratio} == {0, 1, 2}
    for base in ("utkface_race_64", "cifar10_living_64"):
        assert {row.defense for row in rows if row.base == base} == {"none", "random", "dynamic"}
    assert all(row.recipe.data.size_px == 64 for row in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {defense: none, recipe: generated, data: x}", "goes with ratio 0"),
        ("- {defense: random, recipe: generated, data: x, ratios: [0.5]}", "train 'dynamic'"),
        ("- {defense: dynamic, recipe: generated, data: x, ratios: [0.5, 0.5]}", "twice"),
        ("- {recipe: generated}", "expected a suite"),
        ("", "expected a suite"),
    ],
)
def test_a_suite_that_makes_no_sense_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        experiments_of(tmp_path / "s.yaml")


def start(folder: Path, *more: str) -> Result:
    """Type the command, within this process; what a row needs runs in processes of its own."""
    paths = {"--suite": "s.yaml", "--runs": "runs", "--results": "results", "--tables": "results.md"}
    words = [word for option, name in paths.items() for word in (option, str(folder / name))]
    return CliRunner().invoke(app, [*words, *more], env={"COLUMNS": "200"})


def test_a_suite_runs_once(tmp_path: Path) -> None:
    bad = "set: [optim.batch_size=4096, pruning.rule=none]"
    entries = [f"{{defense: none, recipe: generated, data: drawn, {settings}}}" for settings in (bad, FEW)]
    entries[1] = entries[1].replace("data: drawn,", "data: drawn, seeds: [1],")
    (tmp_path / "s.yaml").write_text("".join(f"- {entry}\n" for entry in entries))
    (tmp_path / "results.md").write_text(MARKS)
    listed = start(tmp_path)
    assert listed.exit_code == 0, listed.output
    assert "needs --data drawn=DIR" in listed.output
    assert (tmp_path / "results.md").read_text() == MARKS, "who only lists changes nothing"
    for wrong, message in (("--data", "expected NAME=DIR"), ("--only", "expected names of this suite")):
        refused = start(tmp_path, wrong, "drawn")
        assert refused.exit_code == 2
        assert message in refused.output
    first = start(tmp_path, "--data", f"drawn={tmp_path}")
    assert first.exit_code == 1
    assert "failed: generated-none-r00-s0" in first.output
    (row,) = rows_of(tmp_path / "results")
    assert row.name == "generated-none-r00-s1"
    assert row.report.strongest is not None
    assert str(tmp_path) not in row.model_dump_json(), "where things lie on this machine is nobody's business"
    document = (tmp_path / "results.md").read_text()
    assert "| none | 0 | 1 |" in document
    assert document.startswith("before")
    assert document.endswith("after\n")
    again = start(tmp_path, "--data", f"drawn={tmp_path}", "--only", row.name)
    assert again.exit_code == 0, again.output
    assert f"{row.name}: done" in again.output
    experiment = next(found for found in experiments_of(tmp_path / "s.yaml") if found.name == row.name)
    home = tmp_path / "runs" / row.name
    shutil.rmtree(home / "run")
    assert is_exported(experiment, home), "a bundle that was trained elsewhere can be attacked as it is"
    assert experiment.is_done(row)
    for effort in ("row", "drawn"):
        assert not experiment.model_copy(update={"effort": effort}).is_done(row), "it was attacked in another way"
    assert not experiment.is_done(row.model_copy(update={"settings": {"of": "before"}}))
    other = experiment.model_copy(update={"overrides": (*experiment.overrides, "seed=2")})
    assert not is_exported(other, home), "it is another row's"
    manifest = home / "bundle" / "manifest.json"
    written = manifest.read_text()
    manifest.write_text(written.replace('"generated_pictures"', '"pictures_of_an_older_schema"'))
    assert not is_exported(experiment, home), "its recipe cannot be read any more"
    manifest.write_text(written)
    shutil.rmtree(home / "triton_models")
    assert not is_exported(experiment, home), "its head is missing"


def test_the_document_holds_the_rows_beside_it() -> None:
    """Nobody edits a figure: the tables are what the files give."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = rows_of(RESULTS)
    assert not rows or tables(rows) in text


def test_a_document_without_marks_stays_as_it_is(tmp_path: Path) -> None:
    document = tmp_path / "x.md"
    document.write_text("no marks")
    with pytest.raises(ConfigError, match="expected the marks"):
        write_tables([], document)
    assert document.read_text() == "no marks"
