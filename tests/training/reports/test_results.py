"""Rows are compared only where the comparison is fair, and the tables say what the rows say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Interval, Luck, Reconstruction, percent, points
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.contract import Attribute
from dcp_sdk.errors import ConfigError
from tests.tiny import PAPER
from training.reports.results import Row, figures, over_seeds, points_beside, rows_of, tables


def row(name: str, **changes: object) -> Row:
    """Make a row with the figures of the shipped bundle, of another one."""
    manifest = Manifest.load(PAPER)
    report = PrivacyReport.load(PAPER, manifest.contract)
    assert report is not None
    return Row(
        name=name,
        configuration="somewhere_64",
        defense="gaussian_noise",
        ratio=0.5,
        seed=0,
        settings=manifest.provenance.settings,
        payload_bytes=100,
        training_hours=0.1,
        attack_hours=0.2,
        commit="abc",
        commands=("make it",),
        report=report.model_copy(update={"contract_digest": "0" * 64, **changes}),
    )


def test_only_the_same_question_on_the_same_pictures_is_compared(tmp_path: Path) -> None:
    manifest = Manifest.load(PAPER)
    report = PrivacyReport.load(PAPER, manifest.contract)
    assert report is not None
    row("fair").save(tmp_path)
    row("itself", contract_digest=report.contract_digest).save(tmp_path)
    row("other pictures", tested=17).save(tmp_path)
    row("other secret", sensitive="age").save(tmp_path)
    row("nobody trained", attacks=()).save(tmp_path)
    (point,) = points_beside(report, manifest.contract, tmp_path)
    assert (point.name, point.ratio) == ("gaussian noise", 0.5)
    assert point.sensitive == report.strongest
    smaller = manifest.contract.preprocessing.model_copy(update={"size_px": 64})
    (point,) = points_beside(report, manifest.contract.model_copy(update={"preprocessing": smaller}), tmp_path)
    assert point.name == "gaussian noise, 112 px"
    tall = manifest.contract.model_copy(update={"task": Attribute(name="height", labels=("short", "tall"))})
    assert points_beside(report, tall, tmp_path) == []


def test_a_table_says_what_the_row_says() -> None:
    one = row("one", reconstructions=())
    text = tables([one])
    assert "| gaussian noise | 0.5 | 0 | 100 |" in text
    assert percent(one.report.strongest) in text
    assert "**not protected**" in text
    most = max(
        (exposure for attack in one.report.attacks for exposure in attack.exposures.values()),
        key=lambda each: each.value,
    )
    assert points(most) in text
    assert one.report.most_exposed is not None and one.report.most_exposed[1] == most
    assert "](results/one.json)" in text
    assert "luck" not in tables([row("one", luck=None)])
    by_luck = Interval(value=0.06, low=0.02, high=0.1234)
    lucky = Luck(shuffles=9, balanced_accuracy=by_luck, auc=None, exposure=by_luck)
    assert "; luck up to 12.3 |" in tables([row("one", luck=lucky)])
    assert "drawn" not in text


def test_seeds_of_one_recipe_stand_in_one_line_from_the_least_to_the_most() -> None:
    first = row("one")
    strongest = max(first.report.attacks, key=lambda attack: attack.balanced_accuracy.value)
    weaker = strongest.model_copy(update={"balanced_accuracy": Interval(value=0.3, low=0.2, high=0.4)})
    second = row("two", attacks=(weaker,)).model_copy(update={"seed": 1})
    alone = row("three").model_copy(update={"variant": "alone"})
    (line,) = (line for line in over_seeds([second, alone, first]).splitlines() if line.startswith("| somewhere"))
    assert line.startswith("| somewhere_64 | gaussian noise | 0.5 | 0, 1 | 100 |")
    assert f"| 30.0 to {100 * strongest.balanced_accuracy.value:.1f} % |  |" in line, "and no frames were averaged"
    assert over_seeds([first, alone]) == ""


def test_drawings_have_a_table_where_there_are_any() -> None:
    read = Interval(value=0.25, low=0.2, high=0.3)
    drawing = Reconstruction(
        name="decoder", pictures=7, ssim=0.625, psnr_db=20.25, mean_picture_ssim=0.5, attribute=read
    )
    text = tables([row("one", reconstructions=(drawing,)), row("two", reconstructions=())])
    assert text.count("| decoder |") == 1
    assert f"| decoder | 7 | 0.62 | 0.50 | 20.2 dB | {percent(read)} | not measured |" in text


def test_one_figure_for_each_question_with_every_row_in_it() -> None:
    here, pointed, elsewhere = row("one"), row("two"), row("three", sensitive="age")
    pointed = pointed.model_copy(update={"configuration": "somewhere_64_balanced", "variant": "loud"})
    there = elsewhere.model_copy(update={"configuration": "there_64"})
    alone = row("four", sensitive="height")
    drawn = figures([here, pointed, there, there.model_copy(update={"seed": 1}), alone])
    assert set(drawn) == {"there_64", "somewhere_64"}, "a point alone is no figure"
    (axes,) = drawn["somewhere_64"].axes
    named = [container.get_label() for container in axes.containers]
    assert set(named) == {"gaussian noise loud, balanced, r = 0.5", "gaussian noise, r = 0.5"}


def test_what_is_no_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"x\.json"):
        rows_of(tmp_path)
