"""Calls back who is late, and lets go of who was in time."""

from __future__ import annotations

import math
import threading

from dcp_sdk.watchdog import Watchdog
from tests.sdk.helpers import eventually


def test_who_is_late_is_called_back_and_nobody_else() -> None:
    dog, late, early = Watchdog(), threading.Event(), threading.Event()
    with dog.watching(3600, early.set):
        assert eventually(lambda: dog._wakes < math.inf), "it sleeps until then"
        with dog.watching(0.05, late.set):
            assert late.wait(20), "the nearest moment first"
    assert not early.is_set()


def test_who_left_in_time_is_not_called_when_his_moment_comes() -> None:
    dog, gone, late = Watchdog(), threading.Event(), threading.Event()
    for _ in range(100):
        with dog.watching(0.2, gone.set):
            pass
    with dog.watching(0.2, late.set):
        assert late.wait(20), "after the moments of all others"
    assert not gone.is_set()


def test_ten_thousand_calls_that_end_in_time_are_not_remembered_for_a_day() -> None:
    dog, called = Watchdog(), threading.Event()
    with dog.watching(86_400, called.set):
        for _ in range(10_000):
            with dog.watching(86_400, called.set):
                pass
        assert len(dog._watched) == 1, "who still waits is watched"
    assert not called.is_set()
