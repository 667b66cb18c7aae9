from __future__ import annotations

from pathlib import Path

import pytest

from dcp_sdk.privacy_report import Interval
from training.notebook import Notebook


def never() -> Interval:
    pytest.fail("measured twice")


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    seen = Interval(value=0.5, low=0.4, high=0.6)
    assert Notebook(tmp_path, "a", 1).once("linear probe", Interval, lambda: seen) == seen
    assert Notebook(tmp_path, "a", 1).once("linear probe", Interval, never) == seen


def test_another_key_and_a_torn_page_are_measured(tmp_path: Path) -> None:
    first, second = Interval(value=0.1, low=0, high=1), Interval(value=0.2, low=0, high=1)
    Notebook(tmp_path, "a").once("x", Interval, lambda: first)
    assert Notebook(tmp_path, "b").once("x", Interval, lambda: second) == second
    (page,) = [path for path in tmp_path.rglob("x.json") if "0.1" in path.read_text()]
    page.write_text(page.read_text()[:10])
    assert Notebook(tmp_path, "a").once("x", Interval, lambda: second) == second


def test_without_a_folder_nothing_is_kept() -> None:
    results = iter([Interval(value=0.1, low=0, high=1), Interval(value=0.2, low=0, high=1)])
    notebook = Notebook(None, "a")
    assert notebook.once("x", Interval, lambda: next(results)) != notebook.once("x", Interval, lambda: next(results))
