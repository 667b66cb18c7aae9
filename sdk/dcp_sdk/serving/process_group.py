"""A child process, with all its own children, that never outlives the program that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

__all__ = ["ProcessGroup"]

_POLL_S = 0.02

# Asks the kernel for SIGTERM when the parent dies, then becomes the program. A separate step, because running
# Python between fork and exec can deadlock in a process with threads (gRPC and ONNX Runtime have them).
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


class ProcessGroup:
    """A running program in a session and process group of its own. Linux.

    Ctrl-C in a terminal does not reach it: the parent alone is told, and ends it in its own order. Started
    from the main thread, it gets SIGTERM when the parent is killed.

    Args:
        command: Program (absolute path) and arguments.
        environment: Its environment, whole.
        output: Where its stdout and stderr go.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], output: IO[Any]) -> None:
        # The kernel's signal follows the thread that started the child, so it fits the main thread only.
        if threading.current_thread() is threading.main_thread():
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Number of the program's process and of its group."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the program has ended. Its children may still run."""
        return self._status(os.WNOHANG) is not None

    def wait(self) -> int:
        """Wait until the program ends and return its exit status; negative is the signal that ended it."""
        status = self._status(0)
        assert status is not None  # only WNOHANG gives None
        return status

    def terminate(self, timeout_s: float) -> None:
        """Ask the program alone to end, give it ``timeout_s`` seconds, then :meth:`kill` what is left."""
        try:
            if not self.ended:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGTERM)  # Popen's would reap it, if it ended just now
                deadline = time.monotonic() + timeout_s
                while not self.ended and time.monotonic() < deadline:
                    time.sleep(_POLL_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the whole group at once. Safe to repeat."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def _status(self, flags: int) -> int | None:
        """Look at the exit status without reaping: the group's number must not pass to strangers."""
        if self._process.returncode is not None:
            return self._process.returncode
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flags)
        if end is None:
            return None
        return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
