"""Work that nobody can interrupt, done in a thread aside, so that its caller can leave when the time is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..deadline import Deadline

__all__ = ["Aside"]

T = TypeVar("T")
_MOST_LEFT = 8


class Aside:
    """Does work by a deadline. Thread-safe.

    What was left alone goes on until it ends by itself, such as a read from a network drive that hangs. Where eight go
    on like that, new work waits for one of them to end: each may hold a picture's memory.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left = 0
        """Pieces of work that nobody waits for any more."""

    def do(self, work: Callable[[], T], deadline: Deadline, stage: str) -> T:
        """Return what ``work`` returns, or raise what it raises.

        Args:
            work: Has no part in anything that the caller goes on with.
            deadline: When to leave it alone.
            stage: What it is, for the message.

        Raises:
            DeadlineExceeded: It did not end in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._left < _MOST_LEFT, deadline.left_s()):
                raise deadline.exceeded(stage)
        result: Future[T] = Future()
        try:
            # A daemon: what hangs must not keep the process from ending.
            threading.Thread(target=_do, args=(work, result), name="dcp aside", daemon=True).start()
        except RuntimeError:  # no thread can be had now
            _do(work, result)
        try:
            return result.result(deadline.left_s())
        except TimeoutError:
            if result.done():  # the error is the work's own, or it ended at the last moment
                return result.result()
        self._count_left(1)
        result.add_done_callback(lambda _: self._count_left(-1))
        raise deadline.exceeded(stage)

    def _count_left(self, more: int) -> None:
        with self._changed:
            self._left += more
            self._changed.notify_all()


def _do(work: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the caller raises it
        result.set_exception(error)
