"""Put into figures what an attack draws: how like the pictures the drawings are, and what is read from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dcp_sdk.bundles.measurements import Interval, Reconstruction

from ..attacks import COPIES, RECONSTRUCTIONS, SEARCHES, Knowledge
from ..attacks.picture_classifier import as_payloads, picture_classifier
from ..attacks.reconstruction import Pictures
from ..metrics import balanced_accuracy, perceptual_distance, similarity
from ..payloads import Payloads
from ..reports.panels import png

__all__ = ["measure_reconstruction"]

_READ_PAIRS = 4000
"""Leaked pairs at most from which the attribute is learnt as pictures and drawings show it."""
_READ_EPOCHS = 10


def measure_reconstruction(
    name: str, knowledge: Knowledge, target: Payloads, hidden: Pictures, panels: Payloads
) -> Reconstruction:
    """Let one attack draw the pictures behind ``target``, and compare them with the pictures ``hidden`` from it.

    Args:
        name: Out of ``RECONSTRUCTIONS``. One of ``SEARCHES`` draws the first few targets only; the sensitive attribute
            is then not read from its drawings, since the interval would say nothing.
        knowledge: The attacker's.
        target: M payloads never seen.
        hidden: What they came from, uint8 ``(M, S, S, 3)``.
        panels: Payloads of the pictures that the report shows.
    """
    if name in SEARCHES:
        few = np.arange(min(knowledge.search.targets, len(target)))
        target, hidden, known = target[few], hidden[few], knowledge.leaked[few[:0]]
    else:
        known = knowledge.leaked[np.arange(min(_READ_PAIRS, len(knowledge.leaked)))]
    everything = RECONSTRUCTIONS[name](knowledge, target + panels + known)
    drawn, shown, learnt = np.split(everything, [len(target), len(target) + len(panels)])
    likeness, decibels = similarity(drawn, hidden)
    mean = np.broadcast_to(knowledge.pictures.mean(axis=0).round().astype(np.uint8), hidden.shape)
    from_drawings, from_pictures = (
        _read_attribute(knowledge, learnt, target, drawn, hidden) if len(known) else (None, None)
    )
    return Reconstruction(
        name=name,
        pictures=len(target),
        ssim=likeness,
        psnr_db=decibels,
        mse=float(np.square(drawn.astype(np.float32) / 255 - hidden.astype(np.float32) / 255).mean()),
        mean_picture_ssim=similarity(np.ascontiguousarray(mean), hidden)[0],
        lpips=perceptual_distance(drawn, hidden),
        attribute=from_drawings,
        pictures_attribute=from_pictures,
        panels=() if name in COPIES else tuple(map(png, shown)),
    )


def _read_attribute(
    knowledge: Knowledge, learnt: Pictures, target: Payloads, drawn: Pictures, hidden: Pictures
) -> tuple[Interval, Interval]:
    """Balanced accuracy on the drawings, of the better of two classifiers, and on the pictures.

    One has learnt from the leaked pictures, the other from drawings of the leaked payloads, and so knows the drawer's
    habits.
    """
    settings = replace(knowledge.settings, epochs=min(_READ_EPOCHS, knowledge.settings.epochs), search_epochs=1)
    known = knowledge.leaked[np.arange(len(learnt))]
    both = as_payloads(np.concatenate([hidden, drawn]), target + target)
    from_pictures = picture_classifier(as_payloads(knowledge.pictures[: len(learnt)], known), both, settings)
    from_drawings = picture_classifier(as_payloads(learnt, known), as_payloads(drawn, target), settings)
    seen, transferred = np.split(from_pictures.probabilities.argmax(1), 2)
    answers = (transferred, from_drawings.probabilities.argmax(1))
    read = max((balanced_accuracy(answer, target.labels) for answer in answers), key=lambda share: share.value)
    return read, balanced_accuracy(seen, target.labels)
