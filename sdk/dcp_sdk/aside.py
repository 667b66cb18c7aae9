"""Work that nobody can interrupt, done in a thread aside, so that who asked for it can leave when the time is over."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

from ._at_exit import close_at_exit
from .deadline import Deadline
from .errors import RuntimeUnavailable

__all__ = ["Aside", "Elsewhere", "Work", "no_thread"]

T = TypeVar("T")
_PLACES = 4
_LOOKS_EVERY_S = 0.02
_EXIT_S = 5.0
_IDLE_S = 1.0


class Task(Generic[T]):
    """One piece of work that somebody else does.

    Args:
        work: What to do.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        # A queue in C: who waits for a future and is interrupted may keep its lock, and with it the thread, for ever.
        self._ended: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        self._work = work

    def do(self) -> None:
        """Do it, once."""
        try:
            value = self._work()
            self._ended.put(lambda: value)
        except BaseException as error:  # noqa: BLE001 - who waits raises it
            self._ended.put(partial(_raise, error))

    def result(self, timeout_s: float) -> T:
        """Return what the work returns, or raise what it raises.

        Raises:
            TimeoutError: It did not end in time.
        """
        try:
            ended = self._ended.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        try:
            return ended()
        finally:
            del ended  # an error holds itself by its traceback, and with it what it is about


class Work(Task[T]):
    """One piece of work, in a thread that keeps no process from ending; done by who starts it where none can be had.

    Args:
        work: What to do.
        name: The thread's.
    """

    def __init__(self, work: Callable[[], T], name: str) -> None:
        super().__init__(work)
        self.thread = threading.Thread(target=self.do, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; where none can be had, ``result`` does the work, and waits for it."""
        try:
            self.thread.start()
        except RuntimeError:
            if self.thread.ident is not None:  # it runs: Ctrl-C fell into what waits for that
                raise

    def result(self, timeout_s: float) -> T:
        if self.thread.ident is None:
            self.do()
        return super().result(timeout_s)


class Elsewhere:
    """Does the main thread's work in another one, where no signal's handler runs. Thread-safe.

    For what takes locks in Python's code, such as gRPC: Ctrl-C that falls into it may leave one held for ever, and
    whoever wants it next waits for ever, too. A thread that has nothing to do waits a second for more: starting one
    takes eight times as long as asking one.

    Args:
        name: The threads'.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[queue.SimpleQueue[Task[Any]]] = []

    def do(self, work: Callable[[], T], timeout_s: float) -> T:
        """Return what ``work`` returns, or raise what it raises; any thread but the main one does it itself.

        Args:
            work: Ends by itself, also if nobody waits for it any longer.
            timeout_s: How long to wait for that.

        Raises:
            TimeoutError: It did not end in time.
        """
        if threading.current_thread() is not threading.main_thread():
            return work()
        task = Task(partial(copy_context().run, work))
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(inbox,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if thread.ident is not None:  # it runs: Ctrl-C fell into what waits for that
                    raise
                return work()
        inbox.put(task)
        return task.result(timeout_s)

    def _serve(self, inbox: queue.SimpleQueue[Task[Any]]) -> None:
        while True:
            try:
                inbox.get(timeout=_IDLE_S).do()
            except queue.Empty:
                with suppress(ValueError):  # somebody has just taken it, and is about to ask
                    self._idle.remove(inbox)
                    return
            else:
                self._idle.append(inbox)


class Aside:
    """Does work by a deadline, four pieces at a time. Thread-safe.

    What was left alone goes on until it ends by itself, such as a read from a network drive that hangs, and keeps its
    place until then: each may hold a picture's memory.
    """

    def __init__(self) -> None:
        # What holds a place is a thread that lives, nothing that has to be given back: Ctrl-C may fall anywhere.
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._places = _PLACES
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
        begun = Work(partial(self._do, work), f"dcp {what}")
        while not self._start(begun):
            left_s = deadline.left_s()
            if left_s <= 0:
                why = f"waiting for {what}, since {_PLACES} earlier ones have not ended"
                raise deadline.exceeded(why)
            time.sleep(min(left_s, _LOOKS_EVERY_S))
        try:
            return begun.result(deadline.left_s())
        except TimeoutError:
            raise deadline.exceeded(what) from None

    def _do(self, work: Callable[[], T]) -> T:
        """Do it. By this the thread holds ``self``: at the program's end whom to wait for must not be forgotten."""
        return work()

    def _start(self, begun: Work[T]) -> bool:
        """Start it if there is a place."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            if len(self._threads) >= self._places:
                return False
            self._threads.append(begun.thread)
            begun.start()
        return True

    def close(self) -> None:
        """Begin nothing any more, and wait until nothing goes on, five seconds at the most: the program ends."""
        with self._lock:
            self._places = 0
        end = time.monotonic() + _EXIT_S
        for thread in list(self._threads):
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))


def _raise(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        del error


def no_thread(what: str) -> RuntimeUnavailable:
    """Return what to raise where a thread is needed and none can be had."""
    return RuntimeUnavailable(
        f"expected a thread {what}, the system gives none. "
        "End what else runs on this device, or allow more (ulimit -u, TasksMax)."
    )
