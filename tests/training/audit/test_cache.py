from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dcp_sdk.bundles.measurements import Interval
from training.audit.cache import ResultCache
from training.payloads import Payloads


def never() -> Interval:
    pytest.fail("measured twice")


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    seen = Interval(value=0.5, low=0.4, high=0.6)
    assert ResultCache(tmp_path, "a", 1).once("linear probe", Interval, lambda: seen) == seen
    assert ResultCache(tmp_path, "a", 1).once("linear probe", Interval, never) == seen


def test_another_key_and_a_torn_page_are_measured(tmp_path: Path) -> None:
    first, second = Interval(value=0.1, low=0, high=1), Interval(value=0.2, low=0, high=1)
    ResultCache(tmp_path, "a").once("x", Interval, lambda: first)
    assert ResultCache(tmp_path, "b").once("x", Interval, lambda: second) == second
    (page,) = [path for path in tmp_path.rglob("x.json") if "0.1" in path.read_text()]
    page.write_text(page.read_text()[:10])
    assert ResultCache(tmp_path, "a").once("x", Interval, lambda: second) == second


def test_without_a_folder_nothing_is_kept() -> None:
    results = iter([Interval(value=0.1, low=0, high=1), Interval(value=0.2, low=0, high=1)])
    cache = ResultCache(None, "a")
    assert cache.once("x", Interval, lambda: next(results)) != cache.once("x", Interval, lambda: next(results))


def test_payloads_are_collected_once(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 4)).astype(np.uint8)
    seen = Payloads(np.array([[1, 2]] * 3, np.uint8), drawn, np.arange(3), np.zeros(3, np.int64), 128, 0.25)
    ResultCache(tmp_path, "a").payloads("val", lambda: seen)
    again = ResultCache(tmp_path, "a").payloads("val", lambda: pytest.fail("a second look at the same pictures"))
    assert all(
        np.array_equal(ours, theirs) for ours, theirs in zip(vars(again).values(), vars(seen).values(), strict=True)
    )
    assert again.features.dtype == np.uint8
    other = replace(seen, features=drawn + 1)
    kept, new = ResultCache(tmp_path, "a").many(["val", "val, 10 frames"], lambda: [other, other])
    assert np.array_equal(kept.features, drawn), "who looks at more keeps what was seen before"
    assert np.array_equal(new.features, drawn + 1)
