"""Run something at a moment unless it is called off before: one thread for all, since a timer each costs a thread."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .aside import no_thread

__all__ = ["Watchdog"]


class Watchdog:
    """Calls back those who stay in a block for too long. Thread-safe; its thread starts with the first block."""

    def __init__(self) -> None:
        self._begin()
        if hasattr(os, "register_at_fork"):  # a thread that the child does not have may hold the lock
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        # Entered as itself, in C: Ctrl-C may fall into the Python of a condition's, and leave it held for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._watched: dict[object, tuple[float, Callable[[], None]]] = {}
        """When each block should be over, and whom to call if it is not."""
        self._wakes = math.inf
        """When the thread looks again."""
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, timeout_s: float, bark: Callable[[], None]) -> Iterator[None]:
        """Call ``bark`` from another thread if the block takes longer than ``timeout_s`` seconds.

        Raises:
            RuntimeUnavailable: No thread can be had.
        """
        block, end = object(), time.monotonic() + timeout_s
        with self._lock:
            self._watched[block] = end, bark
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="dcp watchdog", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    del self._watched[block]
                    raise no_thread("to watch over the device graph") from error
                self._thread = thread
            if end < self._wakes:  # seldom: mostly it will look in time for an earlier block, over or not
                self._changed.notify()
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(block, None)

    def _watch(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                late = [block for block, (end, _) in self._watched.items() if end <= now]
                barks = [self._watched.pop(block)[1] for block in late]
                if not barks:
                    self._wakes = min((end for end, _ in self._watched.values()), default=math.inf)
                    self._changed.wait(None if self._wakes == math.inf else self._wakes - now)
                    continue
            for bark in barks:
                bark()
