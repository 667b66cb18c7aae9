"""Run something at a moment unless it is called off before: one thread for all, since a timer each costs a thread."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Watchdog"]


_FEW = 64


@dataclass(order=True)
class _Watch:
    end: float
    number: int
    bark: Callable[[], None] = field(compare=False)
    over: bool = field(default=False, compare=False)


class Watchdog:
    """Calls back those who stay in a block for too long. Thread-safe; its thread starts with the first block."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._watches: list[_Watch] = []
        self._over = 0
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, timeout_s: float, bark: Callable[[], None]) -> Iterator[None]:
        """Call ``bark`` from another thread if the block takes longer than ``timeout_s`` seconds."""
        watch = _Watch(time.monotonic() + timeout_s, next(self._numbers), bark)
        with self._changed:
            heapq.heappush(self._watches, watch)
            if self._thread is None or not self._thread.is_alive():  # it does not live on in a forked child
                self._thread = threading.Thread(target=self._watch, name="dcp watchdog", daemon=True)
                self._thread.start()
            if self._watches[0] is watch:
                self._changed.notify()
        try:
            yield
        finally:
            watch.over = True
            self._forget()

    def _forget(self) -> None:
        """Let go of blocks that are over, once they are most of all: their ends may be a day away."""
        with self._changed:
            self._over += 1
            if self._over > max(_FEW, len(self._watches) // 2):
                self._watches = [watch for watch in self._watches if not watch.over]
                heapq.heapify(self._watches)
                self._over = 0

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._watches:
                    self._changed.wait()
                watch = self._watches[0]
                left_s = watch.end - time.monotonic()
                if not watch.over and left_s > 0:
                    self._changed.wait(left_s)
                    continue
                heapq.heappop(self._watches)
            if not watch.over:
                watch.bark()
