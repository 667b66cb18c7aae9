"""Pairs and servers to be damaged, and a picture that cannot be met by chance on a wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.tiny import ROOT, SIZE, Tiny, write_tiny


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Write a second pair: the same shapes, other weights."""
    return write_tiny(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def own_server(tiny: Tiny) -> Iterator[TritonServer]:
    """Start a server of the test's own, to be damaged."""
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton") as server:
        yield server


@pytest.fixture(scope="session")
def noise() -> Image:
    """Draw a picture of the model's size, so that its pixels reach the graph unchanged."""
    return np.random.default_rng(7).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def broken(tmp_path: Path) -> Tiny:
    """Write a pair of the test's own, to be damaged."""
    return write_tiny(tmp_path)
