"""The few things that an operator wants to read in a log, under the logger ``dcp_sdk``.

Each record has a sentence for people and fields for machines, ``dcp_event`` first. Fields are names, addresses, classes
of errors and seconds: no message of an error is among them, since a server can put into it what it was sent.
"""

from __future__ import annotations

import logging
from typing import Literal

__all__ = ["LEVELS", "Event", "log", "printable"]

Event = Literal[
    "server_lost",
    "server_back",
    "server_refused",
    "breaker_opened",
    "breaker_closed",
    "failover",
    "answered_locally",
    "guard_refused",
    "camera_stale",
    "camera_back",
    "telemetry_failed",
]
"""Value of ``record.dcp_event``."""

LEVELS: dict[Event, int] = {
    "server_lost": logging.WARNING,
    "server_back": logging.INFO,
    "server_refused": logging.WARNING,
    "breaker_opened": logging.WARNING,
    "breaker_closed": logging.INFO,
    "failover": logging.WARNING,
    "answered_locally": logging.WARNING,
    "guard_refused": logging.ERROR,
    "camera_stale": logging.WARNING,
    "camera_back": logging.INFO,
    "telemetry_failed": logging.WARNING,
}
"""How loud each event is."""

_LOG = logging.getLogger("dcp_sdk")
_LOG.addHandler(logging.NullHandler())  # a program that sets up no logging hears nothing, as usual for a library


def log(event: Event, sentence: str, **fields: str | float) -> None:
    """Write a record. Call it outside of locks: a handler may be slow.

    Args:
        event: What happened.
        sentence: The same for people, with ``%(name)s`` for each field that it names.
        fields: Become ``record.dcp_NAME``.
    """
    level = LEVELS[event]
    if _LOG.isEnabledFor(level):
        extra = {"dcp_event": event, **{f"dcp_{name}": value for name, value in fields.items()}}
        _LOG.log(level, sentence, fields, extra=extra, stacklevel=2)


def printable(text: str) -> str:
    """Return text of strangers with a space for each sign that is not shown: a terminal would obey it."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
