"""A linear probe on every value of the unpacked payload: what needs no learning of features at all.

Its problem is convex, and solved: no learning rate, and no stopping early on the few values of a small payload.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..payloads import Payloads
from .base import AttackSettings, Guess, hold_out
from .scaling import SCALINGS

__all__ = ["linear_probe"]

_SCALINGS = ("standardised", "rank-transformed")
"""To a linear layer on centred columns of unit variance, raw values are standardised ones."""
_PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""Inverse strengths of the quadratic penalty (scikit-learn's C): few values want none, thousands a strong one, and a
tenth or ten times as much costs them a point."""
_STEPS = 200
"""Of the solver at most. Ten thousand columns may need more; held-out pairs chose with the same number."""


def linear_probe(leaked: Payloads, target: Payloads, settings: AttackSettings) -> Guess:
    """Solve multinomial logistic regression; scaling and penalty are those that held-out pairs prefer."""
    pairs, chooser = hold_out(leaked, settings.seed, settings.classes)
    some = pairs[np.arange(min(settings.search_pairs, len(pairs)))]
    scalings = {name: SCALINGS[name](pairs) for name in _SCALINGS}
    losses = {
        (name, penalty): _loss(_solve(scale(some), penalty), scale(chooser), settings)
        for name, scale in scalings.items()
        for penalty in _PENALTIES
    }
    name, penalty = min(losses, key=lambda combination: losses[combination])
    scale = scalings[name]
    learned = scale(pairs)
    model = _solve(learned, penalty)
    return Guess(
        probabilities=_probabilities(model, scale(target), settings.classes),
        training_loss=_loss(model, learned, settings),
        held_out_loss=_loss(model, scale(chooser), settings),
        how=f"{name}, penalty {1 / penalty:g}",
    )


def _solve(pairs: Payloads, penalty: float) -> Pipeline:
    model = make_pipeline(StandardScaler(copy=False), LogisticRegression(C=penalty, max_iter=_STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(_columns(pairs), pairs.labels, logisticregression__sample_weight=pairs.weights())


def _loss(model: Pipeline, seen: Payloads, settings: AttackSettings) -> float:
    probabilities = _probabilities(model, seen, settings.classes)
    return float(log_loss(seen.labels, probabilities, labels=np.arange(settings.classes), sample_weight=seen.weights()))


def _probabilities(model: Pipeline, payloads: Payloads, classes: int) -> npt.NDArray[np.float32]:
    result = np.zeros((len(payloads), classes), np.float32)
    result[:, model.classes_] = model.predict_proba(_columns(payloads))
    return result


def _columns(payloads: Payloads) -> npt.NDArray[np.float32]:
    return payloads.dense().flatten(1).numpy()
