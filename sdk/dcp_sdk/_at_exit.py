"""What holds threads is closed before the interpreter ends: one that comes back from C++ later aborts the process."""

from __future__ import annotations

import atexit
import os
import weakref
from contextlib import suppress
from typing import Protocol

__all__ = ["close_at_exit"]


class _Closable(Protocol):
    def close(self) -> None: ...


_OPEN: weakref.WeakKeyDictionary[_Closable, int] = weakref.WeakKeyDictionary()
"""With the process that made it: a forked one has none of its threads."""


def close_at_exit(thing: _Closable) -> None:
    """Close ``thing`` when the interpreter ends, unless it is gone by then."""
    _OPEN[thing] = os.getpid()


@atexit.register
def _close() -> None:
    for thing, process in list(_OPEN.items()):
        if process == os.getpid():
            with suppress(Exception):  # nobody is there any more who could do something about it
                thing.close()
