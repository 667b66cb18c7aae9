"""A figure as SVG that is the same each time it is drawn."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["as_svg"]


def as_svg(figure: Figure) -> str:
    """Return the ``<svg>`` element alone, without date and with the same ids each time."""
    figure.set_layout_engine("constrained")
    text = io.StringIO()
    # Text stays text: it can be searched and read aloud.
    with mpl.rc_context({"svg.hashsalt": "dcp", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
