"""What a bundle answers, betrays and guarantees: every attack on every channel, measured on what a server receives."""

from __future__ import annotations

from .audit import Audit

__all__ = ["Audit"]
