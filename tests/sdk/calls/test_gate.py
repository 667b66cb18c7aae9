"""A door that closes behind the last call."""

from __future__ import annotations

import threading
import time

import pytest

from dcp_sdk import ConfigError
from dcp_sdk.calls.gate import Gate


def test_a_gate_closes_behind_the_last() -> None:
    gate, inside, leave = Gate(), threading.Event(), threading.Event()

    def stay() -> None:
        with gate.entered():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(10)
    start = time.monotonic()
    gate.close(0.2)
    assert time.monotonic() - start >= 0.2, "it waits, but not for ever"
    with pytest.raises(ConfigError, match="closed"), gate.entered():
        pass
    threading.Timer(0.1, leave.set).start()
    gate.close(10)
    thread.join(10)
    assert not thread.is_alive()


def test_who_closes_from_the_middle_of_a_call_does_not_wait_for_itself() -> None:
    """As a signal's handler does, and who reads a stream; it waits for the calls of others all the same."""
    alone = Gate()
    with alone.entered(), alone.entered():
        start = time.monotonic()
        alone.close(10)
        assert time.monotonic() - start < 5
    gate, inside, leave = Gate(), threading.Event(), threading.Event()

    def stay() -> None:
        with gate.entered():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(10)
    with gate.entered():
        threading.Timer(0.2, leave.set).start()
        gate.close(10)
        assert leave.is_set()
    thread.join(10)
