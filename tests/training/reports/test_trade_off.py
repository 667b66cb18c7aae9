from __future__ import annotations

from statistics import fmean

from hypothesis import given
from hypothesis import strategies as st

from dcp_sdk.bundles.manifest import Manifest
from dcp_sdk.bundles.measurements import Interval
from dcp_sdk.bundles.privacy_report import PrivacyReport
from tests.tiny import PAPER
from training.reports.trade_off import TradeOffPoint, pareto_front, trade_off


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


POINT = st.tuples(st.sampled_from("abc"), st.sampled_from((0.0, 0.5)), *[st.integers(1, 9).map(lambda n: n / 10)] * 2)


@given(st.lists(POINT, min_size=1))
def test_the_front_surpasses_all_else(
    drawn: list[tuple[str, float, float, float]],
) -> None:
    points = [
        TradeOffPoint(name=name, ratio=ratio, task=_around(task), sensitive=_around(sensitive))
        for name, ratio, task, sensitive in drawn
    ]
    front = pareto_front(points)
    assert front == sorted(front)
    assert [task for _, task in front] == sorted({task for _, task in front}), (
        "more of the task for each loss of privacy"
    )
    for kind in {(name, ratio) for name, ratio, *_ in drawn}:
        seeds = [(sensitive, task) for name, ratio, task, sensitive in drawn if (name, ratio) == kind]
        mean = tuple(map(fmean, zip(*seeds, strict=True)))
        assert any(at[0] <= mean[0] + 1e-9 and at[1] >= mean[1] - 1e-9 for at in front)


def _around(value: float) -> Interval:
    return Interval(value=value, low=value - 0.02, high=value + 0.02)
