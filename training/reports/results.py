"""Rows of experiments: one JSON file each, and figures and tables of ``docs/results.md`` that are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pydantic import ValidationError

from dcp_sdk.bundles.measurements import Interval, percent, points, share
from dcp_sdk.bundles.privacy_report import DRAWINGS, MOVING, PrivacyReport
from dcp_sdk.contract import Contract, Frozen
from dcp_sdk.errors import ConfigError

from .svg import as_svg
from .trade_off import TradeOffPoint, trade_off

__all__ = ["DOCUMENT", "RESULTS", "Row", "figures", "over_seeds", "points_beside", "rows_of", "tables", "write_tables"]

RESULTS = Path(__file__).parents[2] / "docs" / "results"
DOCUMENT = RESULTS.with_suffix(".md")
_FRAMES = 100
_BEGIN, _END = "<!-- rows: written by training.experiments -->", "<!-- end of rows -->"

_SEEDS_HEAD = (
    "| recipe | defence | r | seeds | bytes | task | strongest adversary | 100 frames "
    "| most exposed group, points | verdicts |\n"
    "|---|---|---:|---|---:|---:|---:|---:|---:|---|"
)
_HEAD = (
    "| defence | r | seed | bytes | task | strongest adversary | which | 100 frames | verdict | train, attack "
    "| measured, with its commands |\n"
    "|---|---:|---:|---:|---:|---:|---|---:|---|---:|---|"
)
_GROUPS_HEAD = (
    "| defence | r | seed | most exposed group by any adversary, points above the mean of the others "
    "| worst served group | masks | linear readout of the task | best possible attacker | bits told "
    "| not asked to hide |\n"
    "|---|---:|---:|---|---|---:|---:|---:|---:|---|"
)
_DRAWINGS_HEAD = (
    "| defence | r | seed | attack | pictures | SSIM | SSIM of always drawing the mean picture | PSNR "
    "| hidden attribute read from the drawings | from the pictures themselves |\n"
    "|---|---:|---:|---|---:|---:|---:|---:|---|---|"
)


class Row(Frozen):
    """One defence, trained, exported and attacked through its bundle."""

    name: str
    configuration: str
    """Name of the recipe that it varies: data, task, what is hidden, size."""
    defense: str
    variant: str = ""
    """What tells it apart from another row of the same defence."""
    ratio: float
    """r, share of channels that is removed."""
    seed: int
    settings: dict[str, Any]
    """The whole recipe."""
    payload_bytes: int
    training_hours: float
    attack_hours: float
    commit: str
    """Of the code that trained it."""
    commands: tuple[str, ...]
    """What made it; ``DIR`` stands for the folder of the data set."""
    report: PrivacyReport

    def save(self, folder: Path) -> None:
        """Write ``NAME.json``, without the report's pictures."""
        report = self.report.without_pictures()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(
            self.model_copy(update={"report": report}).model_dump_json(indent=1) + "\n", encoding="utf-8"
        )


def rows_of(folder: Path) -> list[Row]:
    """Read all rows, by name.

    Raises:
        ConfigError: A file is no row.
    """
    rows = []
    for path in sorted(folder.glob("*.json")):
        try:
            rows.append(Row.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise ConfigError(f"{path}: expected a row of training.experiments, got {error}") from error
    return rows


def points_beside(report: PrivacyReport, contract: Contract, folder: Path = RESULTS) -> list[TradeOffPoint]:
    """Return what was measured of other bundles with the same task and hidden attribute, on the same test pictures.

    Args:
        report: Of the bundle that is compared.
        contract: Of that bundle. Pictures of another size than its own stand in a point's name.
        folder: Holds the rows.
    """
    question = _question(contract.task.name, report)
    points = []
    for row in rows_of(folder):
        size_px = row.settings["data"]["size_px"]
        size = "" if size_px == contract.preprocessing.size_px else f", {size_px} px"
        if _question(_task(row), row.report) == question and row.report.contract_digest != report.contract_digest:
            points.append(TradeOffPoint.of(_point_name(row) + size, row.report, row.ratio))
    return [point for point in points if point is not None]


def tables(rows: Sequence[Row]) -> str:
    """Return one Markdown table per configuration, the least leaking row first."""
    sections = []
    for configuration, group in groupby(sorted(rows, key=_order), key=lambda row: row.configuration):
        chosen = list(group)
        report = chosen[0].report
        lines, groups = ("\n".join(map(write, chosen)) for write in (_line, _groups_line))
        task = _task(chosen[0])
        sections.append(
            f"### {configuration}\n\nTask {task}, hidden: {report.sensitive}. Guessing gives {share(report.chance)}, "
            f"the largest group is {share(report.majority)} of the {report.tested:,} test pictures.\n\n{_HEAD}\n{lines}"
            f"\n\nPer group, and what the payload holds by itself:\n\n{_GROUPS_HEAD}\n{groups}"
        )
        if drawings := "\n".join(line for row in chosen for line in _drawings_lines(row)):
            sections.append(f"What was drawn from payloads:\n\n{_DRAWINGS_HEAD}\n{drawings}")
    return "\n\n".join(sections)


def over_seeds(rows: Sequence[Row]) -> str:
    """Return one Markdown table of what was trained with several seeds, from least to most; empty where nothing was."""

    def key(row: Row) -> tuple[str, str, float]:
        return row.configuration, _name(row), row.ratio

    lines = []
    for (configuration, name, ratio), group in groupby(sorted(rows, key=key), key=key):
        chosen = sorted(group, key=lambda row: row.seed)
        if len(chosen) == 1:
            continue
        reports = [row.report for row in chosen]
        exposed = [f"{100 * report.most_exposed[1].value:+.1f}" for report in reports if report.most_exposed]
        cells = (
            configuration,
            name,
            f"{ratio:g}",
            ", ".join(str(row.seed) for row in chosen),
            f"{chosen[0].payload_bytes:,}",
            _span([report.utility.balanced_accuracy for report in reports]),
            _span([report.strongest for report in reports]),
            _span([_many_frames(report) for report in reports]),
            ", ".join(exposed),
            ", ".join(dict.fromkeys(_verdict(report) for report in reports)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if not lines:
        return ""
    explained = "What one recipe gives with one seed and another: least and most, groups in the order of the seeds."
    return "\n".join(("### Over the seeds of training", "", explained, "", _SEEDS_HEAD, *lines))


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Return the paper's figure 2 for each question that was asked of a data set, by its plainest recipe."""

    def key(row: Row) -> tuple[str, str, int, float, int]:
        return *_question(_task(row), row.report), row.settings["data"]["size_px"]

    found = {}
    for _, group in groupby(sorted(rows, key=key), key=key):
        chosen = list(group)
        if len(chosen) == 1:
            continue
        name = min((row.configuration for row in chosen), key=lambda name: (len(name), name))
        points = [TradeOffPoint.of(_point_name(row), row.report, row.ratio) for row in chosen]
        report = chosen[0].report
        found[name] = trade_off(
            None, [point for point in points if point is not None], sensitive=report.sensitive, chance=report.chance
        )
    return dict(sorted(found.items()))


def write_tables(rows: Sequence[Row], document: Path = DOCUMENT) -> None:
    """Put figures and tables between the two marks of the document; the figures' files lie in the folder beside it."""
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ConfigError(f"{document}: expected the marks {_BEGIN!r} and {_END!r}")
    folder = document.with_suffix("")
    folder.mkdir(exist_ok=True)
    shown = []
    for name, figure in figures(rows).items():
        (folder / f"{name}.svg").write_text(as_svg(figure) + "\n", encoding="utf-8")
        shown.append(f"![{name}: the task against what the strongest adversary reads]({folder.name}/{name}.svg)")
    drawn = "\n\n".join(filter(None, (*shown, over_seeds(rows), tables(rows))))
    document.write_text(f"{before}{begin}\n\n{drawn}\n\n{end}{after}", encoding="utf-8")


def _question(task: str, report: PrivacyReport) -> tuple[str, str, int, float]:
    """Return what must agree for two bundles to be comparable: task, what is hidden, the test pictures."""
    return task, report.sensitive, report.tested, report.majority


def _task(row: Row) -> str:
    return str(row.settings["data"]["task"]["name"])


def _point_name(row: Row) -> str:
    """Name of the defence, and of its operating point where the recipe is one."""
    last = row.configuration.rpartition("_")[2]
    return _name(row) if last.isdigit() else f"{_name(row)}, {last}"


def _order(row: Row) -> tuple[str, float, str]:
    strongest = row.report.strongest
    return row.configuration, strongest.value if strongest else 1.0, row.name


def _name(row: Row) -> str:
    return f"{row.defense} {row.variant}".strip().replace("_", " ")


def _groups_line(row: Row) -> str:
    report = row.report
    certificate = report.certificate
    exposed = served = best = told = ""
    if report.most_exposed is not None:
        group, exposure = report.most_exposed
        lucky = report.luck and report.luck.exposure
        exposed = f"{group}, {points(exposure)}" + (f"; luck up to {100 * lucky.high:.1f}" if lucky else "")
    if report.utility.groups:
        worst = min(report.utility.groups, key=lambda group: group.balanced_accuracy.value)
        served = f"{worst.label}, {percent(worst.balanced_accuracy)}"
    if certificate is not None and certificate.best_accuracy is not None:
        best, told = share(certificate.best_accuracy), f"{certificate.information_bits:.3f}"
    others = "; ".join(
        f"{other.name} {percent(other.balanced_accuracy)}, guessing {share(1 / len(other.labels))}"
        for other in report.others
    )
    readout = "" if report.readout is None else percent(report.readout)
    masks = "" if report.masks is None else f"{report.masks:,}"
    cells = (_name(row), f"{row.ratio:g}", row.seed, exposed, served, masks, readout, best, told, others)
    return f"| {' | '.join(map(str, cells))} |"


def _drawings_lines(row: Row) -> list[str]:
    return [
        f"| {_name(row)} | {row.ratio:g} | {row.seed} | {drawing.name} | {drawing.pictures:,} | {drawing.ssim:.2f} "
        f"| {drawing.mean_picture_ssim:.2f} | {drawing.psnr_db:.1f} dB | {percent(drawing.attribute)} "
        f"| {percent(drawing.pictures_attribute)} |"
        for drawing in row.report.reconstructions
    ]


def _span(values: Sequence[Interval | None]) -> str:
    """Write the least and the greatest of those that were measured, and how many were where some were not."""
    measured = [100 * value.value for value in values if value is not None]
    if not measured:
        return ""
    missing = "" if len(measured) == len(values) else f" ({len(measured)} measured)"
    return f"{min(measured):.1f} to {max(measured):.1f} %{missing}"


def _many_frames(report: PrivacyReport) -> Interval | None:
    still = (seen for seen in report.many_frames if seen.frames == _FRAMES and not seen.moving)
    return next((seen.balanced_accuracy for seen in still), None)


def _verdict(report: PrivacyReport) -> str:
    """Judge a row by what rows are measured by: a bundle that is given away needs drawings and moving faces, too."""
    untried = tuple(name for name in report.untried if name not in (DRAWINGS, MOVING))
    protected = report.model_copy(update={"untried": untried}).protected
    return {True: "holds so far", False: "**not protected**", None: "unknown"}[protected]


def _line(row: Row) -> str:
    report = row.report
    averaged = _many_frames(report)
    frames = "" if averaged is None else percent(averaged)
    return (
        f"| {_name(row)} | {row.ratio:g} | {row.seed} | {row.payload_bytes:,} "
        f"| {percent(report.utility.balanced_accuracy)} | {percent(report.strongest)} | {report.strongest_attack} "
        f"| {frames} | {_verdict(report)} | {row.training_hours:.2f} h, {row.attack_hours:.2f} h "
        f"| [{report.created[:10]}](results/{row.name}.json) |"
    )
