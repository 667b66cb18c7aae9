"""What stands behind a server in production: somebody who starts it again when it crashes.

The Triton of ``.venv-triton`` is 24.10. Before 25.04 connections that are cut under load may crash it
(triton-inference-server/server#8034), and the tests cut many.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from dcp_sdk.serving import TritonServer

_LOOK_EVERY_S = 0.05
_MOST_CRASHES = 5
"""A few are Triton's own. More are ours to explain."""


class Supervisor:
    """Watches over running servers for the length of a ``with`` block; no test may stop them meanwhile."""

    def __init__(self, *servers: TritonServer) -> None:
        self._servers = servers
        self._crashes = 0
        self._looking = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        assert self._crashes <= _MOST_CRASHES, f"{self._crashes} crashes of tritonserver"

    def revive(self) -> None:
        """Start what has crashed, and wait until it is ready."""
        with self._looking:
            for server in self._servers:
                if server.pid is None and self._crashes <= _MOST_CRASHES:
                    self._crashes += 1
                    server.start()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            self.revive()
