"""Work that nobody can interrupt, done in a thread aside, so that its caller can leave when the time is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from ..deadline import Deadline

__all__ = ["Aside"]

T = TypeVar("T")
_MOST = 16


class Aside:
    """Does work by a deadline. Thread-safe.

    What was left goes on until it ends by itself, such as a read from a network drive that hangs. No more than 16 go on
    at once: where so many hang, the next one waits, too.
    """

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(_MOST)

    def do(self, work: Callable[[], T], deadline: Deadline, stage: str) -> T:
        """Return what ``work`` returns, or raise what it raises.

        Args:
            work: Has no part in anything that the caller goes on with.
            deadline: When to leave it alone.
            stage: What it is, for the message.

        Raises:
            DeadlineExceeded: It did not end in time.
        """
        if not self._free.acquire(timeout=deadline.left_s()):
            raise deadline.exceeded(stage)
        result: Future[T] = Future()

        def thread() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                result.set_exception(error)
            finally:
                self._free.release()

        try:
            # A daemon: what hangs must not keep the process from ending.
            threading.Thread(target=thread, name="dcp aside", daemon=True).start()
        except RuntimeError:  # no thread can be had now
            thread()
        try:
            return result.result(deadline.left_s())
        except TimeoutError:
            if result.done():  # the work's own
                raise
            raise deadline.exceeded(stage) from None
