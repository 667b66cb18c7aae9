"""Fixtures that several folders of tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from dcp_sdk.serving import TritonServer

from .supervisor import Supervisor
from .tiny import ROOT, Tiny, write_tiny

if TYPE_CHECKING:
    from .trained import Trained


# How long an example takes says nothing on a shared machine.
settings.register_profile("dcp", deadline=None)
settings.load_profile("dcp")


def pytest_configure() -> None:
    """Let children take Ctrl-C even where a shell started this run in the background, which ignores it for all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Write one tiny pair for the whole run. A test that changes files writes its own with ``write_tiny``."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Write a second pair: the same shapes, other weights."""
    return write_tiny(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def broken(tmp_path: Path) -> Tiny:
    """Write a pair of the test's own, to be damaged."""
    return write_tiny(tmp_path)


@pytest.fixture(scope="session")
def supervised_server(tiny: Tiny) -> Iterator[tuple[TritonServer, Supervisor]]:
    """Run a real Triton on the tiny pair, and start it again if it crashes."""
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton") as server, Supervisor(server) as supervisor:
        yield server, supervisor


@pytest.fixture
def tiny_server(supervised_server: tuple[TritonServer, Supervisor]) -> TritonServer:
    """Give the tiny pair's server, ready. A test that stops or kills the server starts its own."""
    server, supervisor = supervised_server
    supervisor.revive()
    return server


@pytest.fixture(scope="session")
def shipped_server() -> Iterator[TritonServer]:
    """Serve the repository as it is committed."""
    with TritonServer(ROOT / "triton_models", venv=ROOT / ".venv-triton") as server:
        yield server


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train the generated recipe for a moment, once for the whole run, and export it."""
    from .trained import train_and_export  # torch is not needed by those who do not ask for this

    return train_and_export(tmp_path_factory.mktemp("trained"))
