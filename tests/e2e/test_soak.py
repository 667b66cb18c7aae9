"""A very short run of the soak benchmark: no wrong answer, nothing late, and answers after each restart."""

from __future__ import annotations

import pytest

from tests.benchmarks.soak import soak


@pytest.mark.triton
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_that_is_killed_again_and_again(scheme: str) -> None:
    figures = soak(threads=4, calls=600, kills=2, scheme=scheme)
    assert figures["wrong_answers"] == 0
    assert figures["outcomes"]["answer"] > 100
    assert set(figures["outcomes"]) <= {"answer", "ServerUnavailable", "CircuitOpen", "ServerTimeout"}
    assert figures["largest_overshoot_ms"] < 1000, "the benchmark counts what is later than 100 ms"
    assert figures["first_answer_after_restart_s"]["max"] < 10
