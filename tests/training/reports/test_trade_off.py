from __future__ import annotations

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Interval
from dcp_sdk.bundles.privacy_report import PrivacyReport
from tests.tiny import PAPER
from training.reports.trade_off import TradeOffPoint, trade_off


def test_a_point_is_the_headline_of_a_report() -> None:
    report = PrivacyReport.load(PAPER, Manifest.load(PAPER).contract)
    assert report is not None
    point = TradeOffPoint.of("shipped", report)
    assert point is not None
    assert (point.task, point.sensitive) == (report.utility.balanced_accuracy, report.strongest)
    assert TradeOffPoint.of("shipped", report.model_copy(update={"attacks": ()})) is None


def test_every_bundle_stands_in_the_plot_at_its_place_and_every_defence_is_one_curve() -> None:
    this, *others = (
        TradeOffPoint(name=name, ratio=ratio, task=_around(task), sensitive=_around(sensitive))
        for name, ratio, task, sensitive in (
            ("this", 0.9, 0.9, 0.3),
            ("random", 0.9, 0.92, 0.5),
            ("random", 0.5, 0.95, 0.6),
            ("none", 0.0, 0.96, 0.7),
        )
    )
    (axes,) = trade_off(this, others, sensitive="race", chance=0.2).axes
    curves = {container.get_label(): container.lines[0].get_xydata().tolist() for container in axes.containers}
    assert curves == {
        "none": [[0.7, 0.96]],
        "random, r = 0.5, 0.9": [[0.6, 0.95], [0.5, 0.92]],
        "this (this bundle)": [[0.3, 0.9]],
    }


def _around(value: float) -> Interval:
    return Interval(value=value, low=value - 0.02, high=value + 0.02)
