"""Put into figures what an attack draws: how like the pictures the drawings are, and what is read from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from dcp_sdk.bundles.measurements import Interval, Reconstruction

from ..attacks import COPIES, RECONSTRUCTIONS, SEARCHES, Guess, Knowledge
from ..attacks.picture_classifier import as_payloads, learn_pictures
from ..attacks.reconstruction import Pictures
from ..metrics import balanced_accuracy, perceptual_distance, similarity
from ..payloads import Payloads
from ..reports.panels import png

__all__ = ["Reader", "measure_reconstruction"]

_READ_PAIRS = 4000
"""Leaked pairs at most from which the attribute is learnt as pictures and drawings show it."""
_READ_EPOCHS = 10


class Reader:
    """Reads the attribute from drawings, of whatever attack.

    Args:
        knowledge: Whose leaked pictures it learns from.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.known = knowledge.leaked[np.arange(min(_READ_PAIRS, len(knowledge.leaked)))]
        epochs = min(_READ_EPOCHS, knowledge.settings.epochs)
        self._settings = replace(knowledge.settings, epochs=epochs, search_epochs=1)

    def read(self, learnt: Pictures, target: Payloads, drawn: Pictures, hidden: Pictures) -> tuple[Interval, Interval]:
        """Balanced accuracy on drawings, of the better of two classifiers, and on the pictures.

        One has learnt from the leaked pictures, the other from drawings of the leaked payloads, and so knows the
        drawer's habits.

        Args:
            learnt: Drawings of :attr:`known`.
            target: M payloads with their labels.
            drawn: Drawings of these.
            hidden: What they came from.
        """
        by_drawings = learn_pictures(as_payloads(learnt, self.known), self._settings)
        answers = [read(as_payloads(drawn, target)) for read in (self._by_pictures, by_drawings)]
        shares = [balanced_accuracy(answer.probabilities.argmax(1), target.labels) for answer in answers]
        seen = self._by_pictures(as_payloads(hidden, target)).probabilities.argmax(1)
        return max(shares, key=lambda share: share.value), balanced_accuracy(seen, target.labels)

    @cached_property
    def _by_pictures(self) -> Callable[[Payloads], Guess]:
        """The same for every attack."""
        pictures = self.knowledge.pictures[: len(self.known)]
        return learn_pictures(as_payloads(pictures, self.known), self._settings)


def measure_reconstruction(
    name: str, reader: Reader, target: Payloads, hidden: Pictures, panels: Payloads
) -> Reconstruction:
    """Let one attack draw the pictures behind ``target``, and compare them with the pictures ``hidden`` from it.

    Args:
        name: Out of ``RECONSTRUCTIONS``. One of ``SEARCHES`` draws the first few targets only; the sensitive attribute
            is then not read from its drawings, since the interval would say nothing.
        reader: What the attacker knows, and who looks at what is drawn.
        target: M payloads never seen.
        hidden: What they came from, uint8 ``(M, S, S, 3)``.
        panels: Payloads of the pictures that the report shows.
    """
    knowledge = reader.knowledge
    if name in SEARCHES:
        few = np.arange(min(knowledge.search.targets, len(target)))
        target, hidden, known = target[few], hidden[few], reader.known[few[:0]]
    else:
        known = reader.known
    everything = RECONSTRUCTIONS[name](knowledge, target + panels + known)
    drawn, shown, learnt = np.split(everything, [len(target), len(target) + len(panels)])
    likeness, decibels = similarity(drawn, hidden)
    errors = np.square(drawn.astype(np.float32) / 255 - hidden.astype(np.float32) / 255).mean((1, 2, 3))
    mean = np.broadcast_to(knowledge.pictures.mean(axis=0).round().astype(np.uint8), hidden.shape)
    from_drawings, from_pictures = reader.read(learnt, target, drawn, hidden) if len(known) else (None, None)
    return Reconstruction(
        name=name,
        pictures=len(target),
        ssim=likeness,
        psnr_db=decibels,
        mse=float(errors.mean()),
        mse_error=float(errors.std(ddof=1) / math.sqrt(len(errors))) if len(errors) > 1 else None,
        mean_picture_ssim=similarity(np.ascontiguousarray(mean), hidden)[0],
        lpips=perceptual_distance(drawn, hidden),
        attribute=from_drawings,
        pictures_attribute=from_pictures,
        panels=() if name in COPIES else tuple(map(png, shown)),
    )
