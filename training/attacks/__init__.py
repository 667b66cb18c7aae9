"""Fresh adversaries, one family per file. Each gets leaked pairs, and answers for payloads that it has never seen.

An attack is a function ``(leaked, target, settings) -> Guess``; :data:`ATTACKS` names them all.
"""

from collections.abc import Callable

from ..payloads import Payloads
from .base import AttackSettings, Guess
from .boosting import boosting
from .remaining_layers import remaining_layers

__all__ = ["ATTACKS", "Attack", "AttackSettings", "Guess"]

Attack = Callable[[Payloads, Payloads, AttackSettings], Guess]

ATTACKS: dict[str, Attack] = {
    "remaining ResNet layers": remaining_layers,
    "gradient boosting": boosting,
}
"""Every family, under the name that reports use."""
