"""Calls that are under way, and a door that closes behind the last of them. It opens in one process only."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..errors import ConfigError

__all__ = ["Gate"]

T = TypeVar("T")


class Gate:
    """Lets calls of this process in until it is closed. Thread-safe."""

    def __init__(self) -> None:
        self._process = os.getpid()
        # Entered as itself, in C: Ctrl-C may fall into the Python of a condition's, and leave it held for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inside: list[int] = []
        """The thread of each call: one that closes from the middle of a call of its own must not wait for itself."""
        self._closed = False

    @property
    def is_ours(self) -> bool:
        """Whether this process made it. A forked one has its memory and its sockets, but none of its threads."""
        return os.getpid() == self._process

    def check_process(self) -> None:
        """Make sure that this process made it, without touching a lock that nobody may be there to release.

        Raises:
            ConfigError: Another one did.
        """
        if not self.is_ours:
            raise ConfigError(
                f"expected a client of this process, got one that process {self._process} made. "
                'Make the client in the process that uses it (multiprocessing: start method "spawn").'
            )

    def check(self) -> None:
        """Make sure that calls may enter.

        Raises:
            ConfigError: The gate is closed, or of another process.
        """
        self.check_process()
        if self._closed:
            raise self.error()

    @staticmethod
    def error() -> ConfigError:
        """Make what a call gets that comes too late."""
        return ConfigError("the client is closed. Make a new client, or predict inside its `with` block.")

    def shut(self) -> None:
        """Let nobody in any more."""
        with self._lock:
            self._closed = True

    @property
    def is_shut(self) -> bool:
        """Whether calls come too late."""
        return self._closed

    def guarding(self, work: Callable[[T], None]) -> Callable[[T], None]:
        """Make ``work`` a call of its own."""

        def inside(argument: T) -> None:
            with self.entered():
                work(argument)

        return inside

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside for the length of the block.

        Raises:
            ConfigError: The gate is closed, or of another process.
        """
        self.check_process()
        thread = threading.get_ident()
        with self._lock:
            if self._closed:
                raise self.error()
            self._inside.append(thread)
        try:
            yield
        finally:
            with self._lock:
                self._inside.remove(thread)
                if self._closed:  # else nobody waits
                    self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Let nobody in any more, and wait until the calls of other threads are out, but at most ``timeout_s`` seconds.

        A signal's handler, and who reads a stream, may close in the middle of a call of this very thread.
        """
        self.shut()
        with self._lock:
            end = time.monotonic() + timeout_s
            while set(self._inside) - {threading.get_ident()} and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
