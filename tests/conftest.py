"""Fixtures that several folders of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dcp_sdk.serving import TritonServer

from .tiny import ROOT, Tiny, write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Write one tiny pair for the whole run. A test that changes files writes its own with ``write_tiny``."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_server(tiny: Tiny) -> Iterator[TritonServer]:
    """Run a real Triton on the tiny pair. A test that stops or kills the server starts its own."""
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton") as server:
        yield server
