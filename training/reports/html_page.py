"""``privacy_report.html``: the same report for an auditor who has ten minutes. One file, no scripts, no network.

``python -m training.reports.html_page BUNDLE`` writes it again from the JSON report.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcp_sdk.bundles.bundle import HTML_REPORT_FILE
from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Confusion, Interval, SideChannel, percent, points, share, strongest_of
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.commands.errors import errors_in_words
from dcp_sdk.errors import ConfigError

from .results import points_beside
from .statements import area, checked, draws, exposed, luck, ranked_from_frames, statements, unlike_trained
from .svg import as_svg
from .trade_off import TradeOffPoint, trade_off

__all__ = ["render", "write"]

_RED, _GREEN, _GREY, _INK = "#b3261e", "#1b7f4b", "#9aa0a6", "#202124"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #202124; max-width: 60rem; margin: 2rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.2rem; margin-top: 2.5rem }
.verdict { border-left: .5rem solid; padding: .75rem 1.25rem; font-size: 1.2rem; margin: 1.5rem 0; background: #f8f9fa }
.facts { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1rem } .facts div { background: #f8f9fa; padding: 1rem }
.facts b { display: block; font-size: 1.5rem } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid #dadce0; vertical-align: top }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem } svg { width: 100%; height: auto }
.panels { table-layout: fixed }
.panels img { width: 100%; max-width: 12rem; display: block; image-rendering: pixelated }
code { background: #f1f3f4; padding: .1rem .3rem; overflow-wrap: anywhere } .note { color: #5f6368; font-size: .9rem }
@media (max-width: 40rem) { .facts, .pair { grid-template-columns: 1fr } }
"""


def render(manifest: Manifest, report: PrivacyReport, others: Sequence[TradeOffPoint] = ()) -> str:
    """Return the page.

    Args:
        manifest: Of the bundle.
        report: Measurements of that bundle.
        others: Bundles to compare it with, in a plot that is left out where there are none.
    """
    title = f"What {manifest.name} hides"
    sections = [
        _verdict(manifest, report),
        _trade_off(manifest, report, others),
        _adversaries(report),
        _drawings(report),
        _groups(report),
        _beside(manifest, report),
        _certificate(report),
        _limits(report),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>'
        f"<h1>{_text(title)}</h1>" + "\n".join(sections) + "</body></html>\n"
    )


def write(bundle: Path, manifest: Manifest, report: PrivacyReport) -> None:
    """Write the page into ``bundle``, with the rows of ``docs/results`` that it can be compared with."""
    page = render(manifest, report, points_beside(report, manifest.contract))
    (bundle / HTML_REPORT_FILE).write_text(page, encoding="utf-8")


def _verdict(manifest: Manifest, report: PrivacyReport) -> str:
    contract = manifest.contract
    colour = _GREEN if report.protected else _RED
    strongest = "?" if report.strongest is None else share(report.strongest.value)
    return f"""
<p class="note">Bundle contract <code>{contract.digest[:16]}…</code>, measured {_text(report.created)}</p>
<p class="verdict" style="border-color: {colour}">{_text(report.verdict)}</p>
<div class="facts">
<div><b>{strongest}</b>what an attacker gets: {_text(report.sensitive)}, balanced; guessing gives {share(report.chance)}</div>
<div><b>{share(report.utility.balanced_accuracy.value)}</b>what the task keeps: {_text(contract.task.name)}, balanced</div>
<div><b>{contract.payload_bytes:,} bytes</b>what leaves the device, of {contract.input.nbytes:,} in the cropped picture</div>
</div>
<p>The device computes {contract.pruning.channels} channels and sends {contract.pruning.kept} of them
(rule <em>{contract.pruning.rule}</em>{_choices(report)}). Everything below is about those bytes and nothing else. {" ".join(unlike_trained(manifest).values())}{_readout(report)}{draws(report)}</p>"""


def _choices(report: PrivacyReport) -> str:
    if report.masks is None:
        return ""
    choices = "the same choice" if report.masks == 1 else f"{report.masks:,} different choices"
    return f", {choices} for {report.tested:,} pictures"


def _readout(report: PrivacyReport) -> str:
    if report.readout is None:
        return ""
    return f"""
Is the answer already in them? One linear layer on the payload does the task with {percent(report.readout)}."""


def _trade_off(manifest: Manifest, report: PrivacyReport, others: Sequence[TradeOffPoint]) -> str:
    this = TradeOffPoint.of(manifest.name, report)
    if this is None or not others:
        return ""
    figure = trade_off(this, others, sensitive=report.sensitive, chance=report.chance)
    return f"""<h2>What privacy costs</h2>
<p>Each point is one bundle of the same task, attacked through its payloads; lines are 95 % intervals. Up and to the left is better.</p>
{as_svg(figure)}"""


def _adversaries(report: PrivacyReport) -> str:
    rows = "".join(
        f"<tr><td>{_text(attack.name)}<td>{percent(attack.balanced_accuracy)}<td>{area(attack)}<td>{_text(attack.note)}"
        for attack in report.attacks
    )
    figure = Figure(figsize=(9, 0.45 * len(report.attacks) + 1))
    axes = figure.subplots()
    for row, attack in enumerate(reversed(report.attacks)):
        _interval(axes, row, attack.balanced_accuracy, _RED if attack.counts else _GREY)
    axes.set_yticks(range(len(report.attacks)), [attack.name for attack in reversed(report.attacks)])
    axes.axvline(report.chance, color=_INK, linestyle="--", linewidth=1)
    axes.annotate("guessing", (report.chance, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", size=9)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"{report.sensitive}, balanced accuracy with 95 % interval")
    return f"""<h2>Who reads {_text(report.sensitive)}</h2>
<p>Each adversary was trained on {report.leaked:,} leaked payloads with their labels, after the bundle was finished, and judged
on {report.tested:,} payloads that it had never seen. The strongest one counts.{luck(report)} Always naming the largest group would be right
for {share(report.majority)} of the pictures.</p>
{as_svg(figure)}
<table><tr><th>fresh adversary<th>balanced accuracy<th>macro AUC<th>chosen on held-out pairs</tr>{rows}</table>"""


def _groups(report: PrivacyReport) -> str:
    strongest = strongest_of(report.attacks)
    exposures = strongest.exposures if strongest else {}
    panels = [
        (f"{report.sensitive}, as {strongest.name} reads it", strongest.confusion) if strongest else None,
        ("the task, as the server answers", report.utility.confusion),
    ]
    figures = "".join(
        f"<div><h3>{_text(panel[0])}</h3>{_confusion(panel[1])}</div>" for panel in panels if panel and panel[1]
    )
    rows = "".join(
        f"<tr><td>{_text(group.label)}<td>{group.pictures:,}<td>{percent(group.balanced_accuracy)}"
        f"<td>{share(strongest.recalls[group.label]) if strongest and group.label in strongest.recalls else ''}"
        f"<td>{points(exposures[group.label]) if group.label in exposures else ''}"
        for group in report.utility.groups
    )
    return f"""<h2>Is one group served worse, or exposed more?</h2>
<table><tr><th>group<th>pictures<th>task, balanced accuracy<th>called so by the strongest adversary<th>more often than the others on average, points</tr>{rows}</table>
{_paragraph(exposed(report))}
<div class="pair">{figures}</div>"""


def _beside(manifest: Manifest, report: PrivacyReport) -> str:
    channels = "".join(
        f"<tr><td>{_text(channel.name)}<td>{percent(channel.balanced_accuracy)}"
        f"<td>{'nothing more than guessing' if channel.silent else '<b>tells something</b>'}{_bits(channel)}"
        for channel in report.side_channels
    )
    points = "".join(
        f"<tr><td>{point.pairs:,} leaked pairs<td>{percent(point.balanced_accuracy)}<td>{_text(point.attack)}"
        for point in report.leaked_curve
    )
    frames = "".join(
        f"<tr><td>{point.seen}<td>{percent(point.balanced_accuracy)}<td>{_text(point.attack)}"
        f"{_text(ranked_from_frames(point))}"
        for point in report.many_frames
    )
    if manifest.contract.noise is None:
        frames = "<tr><td>many frames of one picture<td><td>nothing is random: each gives the same bytes"
    others = "".join(
        f"<tr><td>{_text(other.name)}, of {len(other.labels)}<td>{percent(other.balanced_accuracy)}"
        f"<td>{_text(other.attack)}; guessing gives {share(1 / len(other.labels))}"
        for other in report.others
    )
    asked = f"<h2>What nobody asked to hide</h2><table><tr><th>attribute<th>balanced accuracy<th></tr>{others}</table>"
    return f"""<h2>What else could tell</h2>
<table><tr><th>side channel<th>balanced accuracy<th></tr>{channels}
<tr><td>payload length<td>one constant<td>fixed by the contract for every picture</table>
<h2>If less had leaked, or more were seen</h2>
<table><tr><th>attacker has<th>balanced accuracy<th></tr>{points}{frames}</table>{asked if others else ""}"""


def _bits(channel: SideChannel) -> str:
    return "" if channel.information_bits is None else f"; at least {channel.information_bits:.3f} bits"


def _certificate(report: PrivacyReport) -> str:
    if report.certificate is None:
        return ""
    rows = "".join(
        f"<tr><td>{_text(what)}<td>{_text(value)}<td>{_text(condition)}"
        for what, value, condition in statements(report)
    )
    return f"""<h2>What holds against any attacker</h2>
<table><tr><th>statement<th><th>if</tr>{rows}</table>
{_paragraph(checked(report))}"""


def _drawings(report: PrivacyReport) -> str:
    if not report.reconstructions:
        return "<h2>Can the picture be drawn again?</h2><p>Not measured.</p>"
    rows = "".join(
        f"<tr><td>{_text(drawing.name)}<td>{drawing.pictures:,}<td>{drawing.ssim:.2f}<td>{drawing.mean_picture_ssim:.2f}"
        f"<td>{drawing.psnr_db:.1f}&nbsp;dB"
        f"<td>{'not measured' if drawing.lpips is None else f'{drawing.lpips:.2f}'}<td>{percent(drawing.attribute)}"
        for drawing in report.reconstructions
    )
    perfect = next(
        (drawing.pictures_attribute for drawing in report.reconstructions if drawing.pictures_attribute), None
    )
    return f"""<h2>Can the picture be drawn again?</h2>
{_panels(report)}<table><tr><th>attack<th>pictures<th>SSIM<th>SSIM of always drawing the mean picture<th>PSNR
<th>LPIPS<th>{_text(report.sensitive)} read from the drawings</tr>{rows}</table>
<p class="note">SSIM 1 and LPIPS 0 are the picture itself; pixels within 0..1. From the pictures themselves
{_text(report.sensitive)} is read with {percent(perfect)}. LPIPS is measured where AlexNet's weights lie in torch's hub folder.</p>"""


def _panels(report: PrivacyReport) -> str:
    if report.panels is None:
        return ""
    columns = {"the camera saw": report.panels.pictures} | {
        drawing.name: drawing.panels for drawing in report.reconstructions if drawing.panels
    }
    heads = "".join(f"<th>{_text(name)}" for name in columns)
    rows = "".join(
        "<tr>"
        + "".join(f'<td><img alt="{_text(name)}" src="data:image/png;base64,{picture}">' for name, picture in row)
        for row in (
            [(name, pictures[index]) for name, pictures in columns.items()]
            for index in range(len(report.panels.pictures))
        )
    )
    return f"""<table class="panels"><tr>{heads}</tr>{rows}</table>
<p class="note">What each attack recovers from the payload alone; those that put leaked pictures together are left out, because what they draw may be a person of
the data set. Originals: {_text(report.panels.origin)}; no picture of a
person in the data set is shown.</p>"""


def _limits(report: PrivacyReport) -> str:
    return f"""<h2>How far this goes</h2>
<p>These are the attacks that were tried. A stronger one may read more; none can prove that nothing is there. Accuracy and privacy were measured on one data set, on {_text(report.hardware)}, first seed {report.seed}.
Repeat it with</p><p><code>{_text(report.command)}</code></p>"""


def _interval(axes: Axes, row: int, interval: Interval, colour: str) -> None:
    axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
    axes.plot(interval.value, row, "o", color=colour)


def _confusion(confusion: Confusion) -> str:
    figure = Figure(figsize=(4.6, 4.2))
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion.counts]
    axes.imshow(shares, vmin=0, vmax=1, cmap="Reds")
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.0%}", ha="center", va="center", color="white" if value > 0.5 else _INK)
    axes.set_xticks(range(len(confusion.labels)), confusion.labels, rotation=30, ha="right")
    axes.set_yticks(range(len(confusion.labels)), confusion.labels)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    return as_svg(figure)


def _paragraph(words: str) -> str:
    return f"<p>{_text(words)}</p>" if words else ""


def _text(value: str) -> str:
    return html.escape(value)


def _main(bundle: Annotated[Path, typer.Argument(help="folder of a bundle with a privacy_report.json")]) -> None:
    """Write the page again, when there are more rows to compare with."""
    with errors_in_words():
        manifest = Manifest.load(bundle)
        report = PrivacyReport.load(bundle, manifest.contract)
        if report is None:
            raise ConfigError(f"{bundle} has no privacy_report.json. Make it with training.evaluate.")
        write(bundle, manifest, report)


if __name__ == "__main__":
    typer.run(_main)
