"""Short runs of the roll-out benchmark: whatever changes at the server, every call is answered by its own head."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcp_sdk.preprocess import Image
from tests.benchmarks.rollout import roll_out, rolling_restart


@pytest.mark.triton
def test_a_new_version_is_loaded_rolled_back_and_the_old_one_retired_under_load(tmp_path: Path, noise: Image) -> None:
    figures = roll_out(tmp_path, [noise, 255 - noise], rounds=1, calls=20, threads=1)
    assert set(figures["outcomes"]) == {"answer"}
    assert figures["device_of_a_retired_version"] == "ServerUnavailable"


@pytest.mark.triton
def test_servers_are_restarted_in_turn_under_load(tmp_path: Path, noise: Image) -> None:
    # Of two servers the second would be stopped while the first, just back, is still left alone for a moment.
    figures = rolling_restart(tmp_path, [noise, 255 - noise], rounds=1, calls=20, threads=1, count=3)
    assert set(figures["outcomes"]) == {"answer"}
