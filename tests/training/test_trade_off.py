from __future__ import annotations

from dcp_sdk.contract import Manifest
from dcp_sdk.privacy_report import Interval, PrivacyReport
from tests.tiny import ROOT
from training.trade_off import TradeOffPoint, trade_off

SHIPPED = ROOT / "bundles" / "gender_112"


def test_a_point_is_the_headline_of_a_report() -> None:
    report = PrivacyReport.load(SHIPPED, Manifest.load(SHIPPED).contract)
    assert report is not None
    point = TradeOffPoint.of("shipped", report)
    assert point is not None
    assert (point.task, point.sensitive) == (report.utility.balanced_accuracy, report.strongest)
    assert TradeOffPoint.of("shipped", report.model_copy(update={"attacks": ()})) is None


def test_every_bundle_stands_in_the_plot_at_its_place() -> None:
    points = [
        TradeOffPoint(name=name, task=_around(task), sensitive=_around(sensitive))
        for name, task, sensitive in (("this", 0.9, 0.3), ("none", 0.95, 0.7), ("noise", 0.8, 0.4))
    ]
    (axes,) = trade_off(points[0], points[1:], sensitive="race", chance=0.2).axes
    assert {(text.get_text(), *text.xy) for text in axes.texts if text.get_text() != "guessing"} == {
        ("this", 0.3, 0.9),
        ("none", 0.7, 0.95),
        ("noise", 0.4, 0.8),
    }


def _around(value: float) -> Interval:
    return Interval(value=value, low=value - 0.02, high=value + 0.02)
