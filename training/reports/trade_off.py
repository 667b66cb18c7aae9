"""The paper's figure 2: what the task keeps against what an adversary reads, one point for each bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Self

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcp_sdk.bundles.measurements import Interval
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.contract import Frozen

__all__ = ["TradeOffPoint", "pareto_front", "trade_off"]

_RED, _INK = "#b3261e", "#202124"
_MARKERS = "osD^vPX<>hp"
_NEAR = 0.1
"""Above guessing: what lies there is drawn a second time, larger."""
_COLUMNS, _ROW_IN = 3, 0.2
"""Of the legend."""


class TradeOffPoint(Frozen):
    """One bundle in the plot."""

    name: str
    """Of the defence: bundles of one name are one curve."""
    ratio: float = 0.0
    """r, share of channels that is removed: the order along the curve."""
    task: Interval
    """Balanced accuracy of the task."""
    sensitive: Interval
    """Balanced accuracy of the strongest adversary."""

    @classmethod
    def of(cls, name: str, report: PrivacyReport, ratio: float = 0.0) -> Self | None:
        """Take the point out of a report; None where no adversary trained."""
        if report.strongest is None:
            return None
        return cls(name=name, ratio=ratio, task=report.utility.balanced_accuracy, sensitive=report.strongest)


def trade_off(this: TradeOffPoint | None, others: Sequence[TradeOffPoint], *, sensitive: str, chance: float) -> Figure:
    """Draw one bundle among others, both axes with 95 % intervals. Up and to the left is better.

    Args:
        this: Highlighted; None highlights nobody.
        others: One colour for each name, and a curve through its ratios where it has several.
        sensitive: Name of the sensitive attribute.
        chance: Balanced accuracy of guessing it.
    """
    points = [*others, *([] if this is None else [this])]
    near = [point for point in points if point.sensitive.value <= chance + _NEAR]
    panels = 2 if 1 < len(near) < len(points) else 1
    rows = math.ceil((len({point.name for point in others}) + 2) / _COLUMNS)
    figure = Figure(figsize=(9.5, 4.5 + rows * _ROW_IN))
    (every,) = figure.subplots(1, panels, squeeze=False)
    front = pareto_front(points)
    for axes in every:
        _draw(axes, this, others, front, chance)
        axes.set_xlabel(f"{sensitive}, read by the strongest adversary" + " (less is more private)" * (panels == 1))
    every[0].set_ylabel("task, balanced accuracy")
    if panels > 1:
        every[1].set_xlim(chance - _NEAR / 4, chance + _NEAR)
        every[1].set_ylim(min(point.task.low for point in near), max(point.task.high for point in near))
        every[1].set_title("the same, near guessing", size=9, loc="right")
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=_COLUMNS, frameon=False, fontsize=8)
    return figure


def _draw(
    axes: Axes,
    this: TradeOffPoint | None,
    others: Sequence[TradeOffPoint],
    front: Sequence[tuple[float, float]],
    chance: float,
) -> None:
    colours = mpl.color_sequences["tab20"]
    for number, name in enumerate(sorted({point.name for point in others})):
        curve = sorted((point for point in others if point.name == name), key=lambda point: point.ratio)
        ratios = sorted({point.ratio for point in curve if point.ratio})
        colour = colours[number % len(colours)]
        _plot(axes, curve, fmt=_MARKERS[number % len(_MARKERS)], color=colour, linewidth=1, label=_label(name, ratios))
        if len(ratios) > 1:
            means = [_mean([point for point in curve if point.ratio == ratio]) for ratio in ratios]
            axes.plot(*zip(*means, strict=True), color=colour, linewidth=1)
    axes.step(*zip(*front, strict=True), where="post", color=_INK, linewidth=1, alpha=0.4, label="Pareto front")
    if this is not None:
        _plot(axes, [this], fmt="*", markersize=14, color=_RED, label=f"{this.name} (this bundle)")
    axes.axvline(chance, color=_INK, linestyle="--", linewidth=1)
    axes.annotate("guessing", (chance, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", size=9)


def pareto_front(points: Sequence[TradeOffPoint]) -> list[tuple[float, float]]:
    """Find what no other surpasses in both respects: ``(sensitive, task)``, the most private first.

    Points of one name and ratio (they differ in the seed) count as their mean.

    Args:
        points: At least one.
    """
    kinds = {(point.name, point.ratio) for point in points}
    means = [_mean([point for point in points if (point.name, point.ratio) == kind]) for kind in kinds]
    front: list[tuple[float, float]] = []
    for sensitive, task in sorted(means, key=lambda mean: (mean[0], -mean[1])):
        if not front or task > front[-1][1]:
            front.append((sensitive, task))
    return front


def _label(name: str, ratios: Sequence[float]) -> str:
    return f"{name}, r = {', '.join(f'{ratio:g}' for ratio in ratios)}" if ratios else name


def _plot(axes: Axes, points: Sequence[TradeOffPoint], **style: Any) -> None:
    axes.errorbar(
        [point.sensitive.value for point in points],
        [point.task.value for point in points],
        xerr=_reach([point.sensitive for point in points]),
        yerr=_reach([point.task for point in points]),
        elinewidth=0.6,
        **style,
    )


def _mean(points: Sequence[TradeOffPoint]) -> tuple[float, float]:
    """Where the seeds of one ratio are on average."""
    return fmean(point.sensitive.value for point in points), fmean(point.task.value for point in points)


def _reach(intervals: Sequence[Interval]) -> list[list[float]]:
    """Distances from the values down and up to the ends of their intervals."""
    return [[each.value - each.low for each in intervals], [each.high - each.value for each in intervals]]
