"""Where every command prints its answer."""

from __future__ import annotations

import os
import sys

from rich.console import Console

__all__ = ["output"]

_UNCUT = 10_000
"""Columns for a reader that is a program: it wants a digest or an address in one piece."""


def output() -> Console:
    """Give standard output: as wide as its terminal or ``$COLUMNS``, without an end in a pipe or file."""
    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNCUT
    return Console(width=wide, highlight=False, markup=False)  # brackets in a stranger's report are brackets
