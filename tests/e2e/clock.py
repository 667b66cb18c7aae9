"""A clock that somebody sets: libfaketime, where it is installed."""

from __future__ import annotations

from pathlib import Path

PREDICT_S = 2.0
TRUE = "+0"
JUMPS = ("+1h", "-1d", "+10y", "-40y")
"""Offsets of the time of day, as libfaketime reads them. The last is a device without a battery for its clock."""


def libfaketime() -> Path | None:
    """Where the library lies that shows a process another time of day; None where it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None
