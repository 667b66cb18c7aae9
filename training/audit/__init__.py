"""What a bundle answers, betrays and guarantees: every attack on every channel, measured on what a server receives."""

from __future__ import annotations

from .audit import Audit
from .evidence import Evidence

__all__ = ["Audit", "Evidence"]
