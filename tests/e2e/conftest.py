"""Pairs and servers to be damaged, and a picture that cannot be met by chance on a wire."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dcp_sdk.preprocess import Image
from dcp_sdk.serving import TritonServer
from tests.tiny import ADMIN_KEY, ROOT, SIZE, Tiny


@pytest.fixture
def own_server(tiny: Tiny) -> Iterator[TritonServer]:
    """Start a server of the test's own, to be damaged."""
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", admin_key=ADMIN_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def noise() -> Image:
    """Draw a picture of the model's size, so that its pixels reach the graph unchanged."""
    return np.random.default_rng(7).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
