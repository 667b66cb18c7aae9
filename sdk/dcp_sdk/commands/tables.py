"""Predictions, contracts and findings as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..bundles.manifest import Manifest
from ..bundles.measurements import percent, share
from ..bundles.privacy_report import PrivacyReport
from ..contract import TensorSpec
from ..doctor import Finding, State
from ..errors import DCPError
from ..events import printable
from ..predictions import Prediction, Timings
from ..stats import Percentiles, Stats

if TYPE_CHECKING:
    from ..bench import Budget

__all__ = [
    "budget_table",
    "contract_table",
    "finding_line",
    "live_table",
    "prediction_table",
    "privacy_table",
    "readable_bytes",
    "timing_rows",
]

_STATES: dict[State, tuple[str, str]] = {
    "ok": ("OK", "green"),
    "note": ("note", "yellow"),
    "problem": ("PROBLEM", "bold red"),
}


def readable_bytes(count: int) -> str:
    """Write a number of bytes with a unit that keeps it short.

    >>> readable_bytes(2609)
    '2.6 kB'
    """
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB"


def timing_rows(timings: Timings) -> list[tuple[str, str]]:
    """Name each stage and its milliseconds, in the order of the frame's journey."""
    return [(field.name.removesuffix("_ms"), f"{getattr(timings, field.name):.1f} ms") for field in fields(timings)]


def prediction_table(rows: Iterable[tuple[str, Prediction | DCPError]]) -> Table:
    """Show one line per picture: its name, the answer and what it cost, or what went wrong."""
    table = Table("picture", "label", "probability", "bytes sent", "time", box=None, pad_edge=False)
    for name, prediction in rows:
        if isinstance(prediction, DCPError):
            table.add_row(Text(printable(name)), Text(type(prediction).__name__, "red"))
            continue
        table.add_row(
            Text(printable(name)),
            Text(prediction.label, "bold"),
            share(prediction.probability),
            readable_bytes(prediction.bytes_sent),
            f"{prediction.timings.total_ms:.1f} ms",
        )
    return table


def live_table(prediction: Prediction, stats: Stats, *, count: int, frames_per_s: float) -> Table:
    """Show the newest prediction of a stream in full, and how the stream goes."""
    table = _facts()
    for label, probability in prediction.probabilities.items():
        bar = Text("█" * round(30 * probability), "green" if label == prediction.label else "dim")
        table.add_row(Text(label), bar.append(f" {share(probability)}"))
    table.add_row("bytes sent", f"{readable_bytes(prediction.bytes_sent)}, {readable_bytes(stats.bytes_sent)} in all")
    table.add_row("channels sent", " ".join(map(str, prediction.kept_channels)))
    table.add_row("frame age", f"{prediction.frame_age_ms:.0f} ms")
    table.add_row("frames", f"{count}, {frames_per_s:.1f} per second, {stats.frames_dropped} dropped")
    for stage, duration in timing_rows(prediction.timings):
        usual = stats.stages[stage]
        table.add_row(
            Text(stage, "dim"), Text(f"{duration:>10}   p50 {usual.p50_ms:.1f}   p99 {usual.p99_ms:.1f}", "dim")
        )
    sends = f"{stats.sends} sends, {stats.retries} retries, {stats.failovers} failovers"
    local = f", {stats.answered_locally} answered here" if stats.answered_locally else ""
    table.add_row("device, server", Text(f"{prediction.provider}, {prediction.server}"))
    table.add_row("requests", sends + local)
    for address, state in stats.breakers.items():
        table.add_row("breaker", Text.assemble(f"{address} ", (state, "green" if state == "closed" else "bold red")))
    return table


def budget_table(budget: Budget) -> Table:
    """Show what each stage of a call costs, and what the SDK adds to a program without it."""
    table = Table("", "p50", "p99", "", box=None, pad_edge=False)

    def add(name: str, times: Percentiles, what: str = "") -> None:
        table.add_row(name, f"{times.p50_ms:.2f} ms", f"{times.p99_ms:.2f} ms", Text(what, "dim"))

    for name, times in budget.stages.items():
        add(name, times)
    table.add_section()
    add("predict", budget.predict, f"{budget.calls} calls, in turns with bare")
    add("bare", budget.bare, "device graph and tritonclient, nothing else")
    add("SDK tax", budget.tax, "predict less bare, call by call")
    add("noise", budget.noise, "bare less bare: a smaller tax was not measured")
    return table


def contract_table(manifest: Manifest) -> Table:
    """Show what a bundle answers, what it hides, what leaves the device and where it comes from."""
    contract, provenance = manifest.contract, manifest.provenance
    pruning, head = contract.pruning, contract.head
    table = _facts()
    rows = {
        "bundle": manifest.name,
        "task": f"{contract.task.name}: {', '.join(contract.task.labels)}",
        "sensitive": f"{contract.sensitive.name}: {', '.join(contract.sensitive.labels)}",
        "input": _tensor(contract.input),
        "pruning": f"none: all {pruning.channels} channels are sent"
        if pruning.rule == "none"
        else f"{pruning.rule}, {pruning.pruner or 'no'} pruner, ratio {pruning.ratio:g}: "
        f"keeps {pruning.kept} of {pruning.channels} channels",
        "bottleneck": printable(provenance.bottleneck or "") or "none: all channels of the split",
        "noise": "none: the same picture gives the same bytes"
        if contract.noise is None
        else "drawn anew for each picture, from the operating system's generator",
        "leaves the device": "\n".join(_tensor(tensor) for tensor in contract.payload),
        "bytes per picture": f"{readable_bytes(contract.payload_bytes)} "
        f"(all {pruning.channels} channels as float32: {readable_bytes(contract.dense_bytes)})",
        "answer": _tensor(contract.answer),
        "task head": f"{head.model}, version {head.version}, batches up to {head.max_batch_size}",
        "digest": contract.digest,
        "trained by": f"recipe {provenance.recipe}, seed {provenance.seed}, commit {provenance.commit}",
        "exported": provenance.created,
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def privacy_table(report: PrivacyReport) -> Table:
    """Show what each adversary reads, what else could tell, and how it falls with fewer leaked pairs."""
    table = Table("fresh adversary", f"reads {report.sensitive}, balanced", "", box=None, pad_edge=False)
    table.add_row("guessing", share(report.chance), f"always the largest group: {share(report.majority)} of all")
    for attack in report.attacks:
        table.add_row(attack.name, percent(attack.balanced_accuracy), attack.note)
    for drawing in report.reconstructions:
        note = f"draws the picture; the mean picture has {drawing.mean_picture_ssim:.2f}"
        if drawing.attribute is not None:
            note += f"; from its drawings {report.sensitive} is read with {percent(drawing.attribute)}"
        table.add_row(drawing.name, f"SSIM {drawing.ssim:.2f}, {drawing.psnr_db:.1f} dB", note)
    for channel in report.side_channels:
        note = "tells nothing" if channel.silent else "TELLS SOMETHING"
        table.add_row(channel.name, percent(channel.balanced_accuracy), note)
    for point in report.leaked_curve[:-1]:
        table.add_row(point.attack, percent(point.balanced_accuracy), f"from {point.pairs} leaked pairs only")
    for seen in report.many_frames:
        table.add_row(
            seen.attack,
            percent(seen.balanced_accuracy),
            f"from {seen.seen}",
        )
    for other in report.others:
        note = f"reads {other.name}, which nobody asked to hide; guessing gives {share(1 / len(other.labels))}"
        table.add_row(other.attack, percent(other.balanced_accuracy), note)
    if report.readout is not None:
        table.add_row("linear layer", percent(report.readout), "reads the answer of the task from the payload alone")
    if report.certificate is not None and report.certificate.best_accuracy is not None:
        table.add_row("best possible", share(report.certificate.best_accuracy), "on one payload of the tested pictures")
    return table


def finding_line(finding: Finding) -> Text:
    """Show one finding: its state, what was found and what mends it."""
    word, style = _STATES[finding.state]
    line = Text.assemble((f"{word:<8}", style), printable(f"{finding.subject}: {finding.detail}"))
    return line.append(f"\n{'':<8}-> {printable(finding.remedy)}", "cyan") if finding.remedy else line


def _facts() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _tensor(spec: TensorSpec) -> str:
    sizes = " x ".join(map(str, spec.shape))
    return f"{spec.name}: {spec.dtype} {spec.layout} {sizes}, {readable_bytes(spec.nbytes)}"
