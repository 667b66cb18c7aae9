"""What several files of tests need: a transport that remembers, the command, threads that end or cannot start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
from typer.testing import CliRunner, Result

from dcp_sdk import Contract, Transport
from dcp_sdk.cli import app
from dcp_sdk.obfuscate import Payload
from dcp_sdk.serving import TritonServer
from dcp_sdk.transport.memory import MemoryTransport
from tests.tiny import Tiny


class Recorder(Transport):
    """The in-process head, and a list of all that reached it."""

    def __init__(self, repository: Path) -> None:
        self._head = MemoryTransport(repository)
        self.sent: list[Payload] = []
        self.closed = 0

    @property
    def address(self) -> str:
        return "recorder"

    def connect(self, contract: Contract, timeout_s: float) -> None:
        self._head.connect(contract, timeout_s)

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        self.sent.append(payload)
        return self._head.infer(payload, timeout_s)

    def close(self) -> None:
        self.closed += 1


def memory(tiny: Tiny) -> str:
    """Return the address of the pair's head in this process."""
    return f"memory://{tiny.repository}"


def address_of(server: TritonServer, scheme: str) -> str:
    """Return where ``server`` listens."""
    return server.grpc_address if scheme == "grpc" else server.http_address


def run(*arguments: object) -> Result:
    """Call ``dcp`` on a wide terminal."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def no_streams() -> list[str]:
    """Return the names of those threads of streams that still run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dcp stream")]


def no_more_threads(thread: threading.Thread) -> None:
    """Take the place of ``Thread.start``."""
    raise RuntimeError("can't start new thread")
