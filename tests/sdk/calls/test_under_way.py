"""Whose turn it is in a stream, told without its threads."""

from __future__ import annotations

import threading
import time

import numpy as np

from dcp_sdk import Frame
from dcp_sdk.calls.stages import Request
from dcp_sdk.calls.under_way import UnderWay
from dcp_sdk.deadline import Deadline
from dcp_sdk.stats import Counters
from tests.sdk.helpers import eventually

IMAGE = np.zeros((4, 4, 3), np.uint8)


def request() -> Request:
    return Request(Deadline(60), frames=[Frame(IMAGE, time.monotonic(), "test")])


def test_the_device_graph_waits_for_a_busy_network_and_not_for_a_free_one() -> None:
    frames = UnderWay(Counters(), in_flight=1, notify=lambda: None)
    sent: list[int] = []

    def network() -> None:
        trip = frames.send()
        assert trip is not None
        sent.append(trip.sequence)

    thread = threading.Thread(target=network, daemon=True)
    thread.start()
    assert eventually(lambda: frames._idle == 1)
    with frames._lock:  # so that the thread, which is free, cannot take the payload before the next frame begins
        for begun in range(2):
            frames.captured(request())
            trip = frames.begin()
            assert trip is not None
            assert trip.sequence == begun
            frames.computed(trip)
        assert sent == [], "the second frame began before the first was taken"
    thread.join(60)
    assert sent == [0]
    frames.captured(request())
    assert not frames._may_begin(), "one payload waits, and nobody is free to take it"
    frames.stop()
