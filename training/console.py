"""Where the tools of training and export speak: standard error, so that their output can be piped."""

from rich.console import Console

__all__ = ["console"]

console = Console(stderr=True, highlight=False, markup=False)  # brackets in a label or a path are brackets
