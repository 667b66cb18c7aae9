"""What every attack is given and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

from ..config import NetworkConfig
from ..payloads import Payloads

__all__ = ["Attack", "AttackSettings", "Guess", "hold_out", "hold_out_indices"]

_HELD_OUT = 0.15
"""Share of the leaked pairs on which an attacker compares settings, and stops."""


@dataclass(frozen=True)
class AttackSettings:
    """What an attacker decides, and knows beside the payloads."""

    network: NetworkConfig
    """Architecture and split of the attacked bundle: public."""
    classes: int
    """Number of sensitive classes."""
    seed: int
    epochs: int
    """Passes over the leaked pairs at most, for those that learn by gradient."""
    decoder_epochs: int
    """The same for those that draw pictures, which takes longer."""
    patience: int
    """Epochs without a better held-out balanced accuracy after which they stop."""
    search_epochs: int
    """Passes over the search's pairs for each combination of scaling and learning rate."""
    search_pairs: int
    """Leaked pairs that this search uses at most."""
    mirror: bool
    """Whether payloads of mirrored pictures are to be expected: then a mirrored payload is another example."""
    trees: int
    """Rounds of boosting at most."""


Probabilities = Annotated[
    npt.NDArray[np.float32], PlainValidator(partial(np.asarray, dtype=np.float32)), PlainSerializer(np.ndarray.tolist)
]


class Guess(BaseModel):
    """An adversary's answers. It can be written down as JSON."""

    model_config = ConfigDict(frozen=True)

    probabilities: Probabilities
    """For the target payloads, ``(N, classes)``."""
    training_loss: float
    """Its cross-entropy on the leaked pairs that it was trained on, in nats."""
    held_out_loss: float | None = None
    """The same on leaked pairs that it was not trained on; None of who sets none aside."""
    how: str
    """The scaling and settings that it chose on held-out leaked pairs."""
    minutes: float = 0.0
    """That its training took."""


Learn = Callable[[Payloads, AttackSettings], Callable[[Payloads], Guess]]
"""``(leaked, settings)``: learn from the leaked pairs, and return what answers for payloads never seen."""

Attack = Callable[[Payloads, Payloads, AttackSettings], Guess]
"""``(leaked, target, settings)``: learn from the leaked pairs, answer for payloads never seen."""


def hold_out(leaked: Payloads, seed: int, classes: int) -> tuple[Payloads, Payloads]:
    """Split the leaked pairs at random into those to learn from and those to choose by."""
    learned, held = hold_out_indices(len(leaked), seed, classes)
    return leaked[learned], leaked[held]


def hold_out_indices(count: int, seed: int, classes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """As :func:`hold_out`, for who has something beside the payloads to split."""
    order = np.random.default_rng(seed).permutation(count)
    held = min(count // 2, max(2 * classes, round(_HELD_OUT * count)))
    return order[held:], order[:held]
