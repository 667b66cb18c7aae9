"""The paper's figure 2: what the task keeps against what an adversary reads, one point for each bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from dcp_sdk.privacy_report import Interval, PrivacyReport

__all__ = ["TradeOffPoint", "trade_off"]

_RED, _GREY, _INK = "#b3261e", "#9aa0a6", "#202124"


class TradeOffPoint(BaseModel):
    """One bundle in the plot."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    task: Interval
    """Balanced accuracy of the task."""
    sensitive: Interval
    """Balanced accuracy of the strongest adversary."""

    @classmethod
    def of(cls, name: str, report: PrivacyReport) -> Self | None:
        """Take the point out of a report; None where no adversary trained."""
        if report.strongest is None:
            return None
        return cls(name=name, task=report.utility.balanced_accuracy, sensitive=report.strongest)


def trade_off(this: TradeOffPoint, others: Sequence[TradeOffPoint], *, sensitive: str, chance: float) -> Figure:
    """Draw one bundle among others, both axes with 95 % intervals. Up and to the left is better.

    Args:
        this: Highlighted.
        others: In grey.
        sensitive: Name of the sensitive attribute.
        chance: Balanced accuracy of guessing it.
    """
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    for point in (*others, this):
        colour = _RED if point is this else _GREY
        x, y = point.sensitive, point.task
        axes.errorbar(
            x.value,
            y.value,
            xerr=[[x.value - x.low], [x.high - x.value]],
            yerr=[[y.value - y.low], [y.high - y.value]],
            fmt="o",
            color=colour,
        )
        axes.annotate(point.name, (x.value, y.value), xytext=(6, 6), textcoords="offset points", color=colour, size=9)
    axes.margins(x=0.2, y=0.1)  # names stand to the right of their points
    axes.axvline(chance, color=_INK, linestyle="--", linewidth=1)
    axes.annotate("guessing", (chance, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", size=9)
    axes.set_xlabel(f"{sensitive}, balanced accuracy of the strongest adversary (less is more private)")
    axes.set_ylabel("task, balanced accuracy")
    return figure
