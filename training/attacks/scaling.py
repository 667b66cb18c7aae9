"""Monotone maps of the payload's values, which an attacker has for free. Networks fail on the wrong one.

Each maps payloads to payloads; a pruned channel stays exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..payloads import Payloads

__all__ = ["SCALINGS", "FitScaling", "Scaling", "standardised"]

Scaling = Callable[[Payloads], Payloads]
FitScaling = Callable[[Payloads], Scaling]
"""From leaked payloads to the map."""
Values = npt.NDArray[np.float32]

_KNOTS = 257
_LARGEST = float(np.finfo(np.float16).max)
_FITTED = 1024
"""Payloads from which a map is fitted at most."""


def raw(leaked: Payloads) -> Scaling:
    """Values as the task head dequantises them."""
    del leaked
    return lambda payloads: payloads


def standardised(leaked: Payloads) -> Scaling:
    """Each channel divided by its standard deviation. Not centred: 0 keeps meaning *pruned, or silent*."""
    some = _some(leaked)
    values = some.values()
    deviations = np.ones(leaked.total_channels, np.float32)
    for channel in range(leaked.total_channels):
        kept = values[some.channels == channel]
        spread = float(kept.std(dtype=np.float64)) if kept.size else 0.0
        if np.isfinite(spread) and spread > 0:
            deviations[channel] = spread
    return lambda payloads: _with_values(payloads, payloads.values() / deviations[payloads.channels][:, :, None, None])


def ranked(leaked: Payloads) -> Scaling:
    """Each value replaced by its rank, in (0, 1], among its channel's values: heavy tails are gone.

    Knots are order statistics, not interpolated: any increasing map of a channel gives the same ranks.
    """
    some = _some(leaked)
    values = some.values()
    knots: dict[int, Values] = {}
    for channel in range(leaked.total_channels):
        kept = np.sort(values[some.channels == channel], axis=None)
        if kept.size:
            knots[channel] = kept[np.linspace(0, kept.size - 1, _KNOTS).round().astype(int)]

    def scale(payloads: Payloads) -> Payloads:
        values = payloads.values()
        ranks = np.full(values.shape, 0.5, np.float32)
        for channel, known in knots.items():
            chosen = payloads.channels == channel
            found = values[chosen]
            below, upto = (np.searchsorted(known, found, side) for side in ("left", "right"))
            ranks[chosen] = (below + upto + 1) / (2 * _KNOTS + 1)
        return _with_values(payloads, ranks)

    return scale


SCALINGS: dict[str, FitScaling] = {
    "raw": raw,
    "standardised": standardised,
    "rank-transformed": ranked,
}


def _some(leaked: Payloads) -> Payloads:
    return leaked[np.arange(min(_FITTED, len(leaked)))]


def _with_values(payloads: Payloads, values: Values) -> Payloads:
    finite = np.clip(np.nan_to_num(values), -_LARGEST, _LARGEST)
    return replace(payloads, features=finite.astype(np.float16), scale=1.0)
