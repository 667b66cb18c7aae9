"""Work that nobody can interrupt, done in a thread aside, so that who asked for it can leave when the time is over."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from ._at_exit import close_at_exit
from .deadline import Deadline
from .errors import RuntimeUnavailable

__all__ = ["Aside", "begin", "no_thread"]

T = TypeVar("T")
_PLACES = 4
_EXIT_S = 5.0


class Aside:
    """Does work by a deadline, four pieces at a time. Thread-safe.

    What was left alone goes on until it ends by itself, such as a read from a network drive that hangs, and keeps its
    place until then: each may hold a picture's memory.
    """

    def __init__(self) -> None:
        # Tokens, not a semaphore, whose Python Ctrl-C may fall into and take a place away for good. It still can, more
        # seldom: between a token that is taken and the work that gives it back.
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(_PLACES):
            self._places.put(None)
        self._going: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
        close_at_exit(self)

    def do(self, work: Callable[[], T], deadline: Deadline, what: str) -> T:
        """Return what ``work`` returns, or raise what it raises.

        Args:
            work: Has no part in anything that the caller goes on with. Raises no TimeoutError of its own.
            deadline: When to leave it alone.
            what: What is done, for the message.

        Raises:
            DeadlineExceeded: It did not end in time, or found no place.
        """
        try:
            self._places.get(timeout=deadline.left_s())
        except queue.Empty:
            why = f"waiting for {what}, since {_PLACES} earlier ones have not ended"
            raise deadline.exceeded(why) from None
        held = [None]

        def give_back() -> None:
            with suppress(IndexError):  # once, whoever comes first
                self._places.put(held.pop())

        def in_place() -> T:
            try:
                return work()
            finally:
                give_back()

        try:
            result = begin(in_place, f"dcp {what}")
        except BaseException:
            give_back()
            raise
        self._going.add(result)
        try:
            return result.result(deadline.left_s())
        except TimeoutError:
            raise deadline.exceeded(what) from None
        finally:
            del result  # else an error holds itself by its traceback, and with it what it is about

    def close(self) -> None:
        """Wait until nothing goes on any more, five seconds at the most."""
        concurrent.futures.wait(list(self._going), _EXIT_S)


def begin(work: Callable[[], T], name: str) -> Future[T]:
    """Begin ``work`` in a thread that keeps no process from ending; do it at once where no thread can be had."""
    result: Future[T] = Future()
    thread = threading.Thread(target=_do, args=(work, result), name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        if thread.ident is not None:  # it runs: Ctrl-C fell into what waits for that
            raise
        _do(work, result)
    return result


def no_thread(what: str) -> RuntimeUnavailable:
    """Return what to raise where a thread is needed and none can be had."""
    return RuntimeUnavailable(
        f"expected a thread {what}, the system gives none. "
        "End what else runs on this device, or allow more (ulimit -u, TasksMax)."
    )


def _do(work: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:  # noqa: BLE001 - who waits raises it
        result.set_exception(error)
    finally:
        del work, result  # as above
