"""How every command of this project fails: one line that says why, and exit status 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from ..errors import DCPError
from ..events import printable

__all__ = ["errors_in_words", "show_error"]

_ERR = Console(stderr=True)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Show an error of ours that ends the block, and end the command; it decorates commands, too.

    Raises:
        typer.Exit: With status 2, after an error of ours.
    """
    try:
        yield
    except DCPError as error:
        show_error(error)
        raise typer.Exit(2) from error


def show_error(error: DCPError) -> None:
    """Print it as one line of text: names in a stranger's graph could hold what a terminal obeys."""
    text = printable(f"{type(error).__name__}: {error}")
    _ERR.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
