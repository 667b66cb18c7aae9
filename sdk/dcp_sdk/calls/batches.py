"""What several pictures are, and how many of them go into one request."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import SupportsIndex

import numpy as np

from ..errors import ConfigError
from ..frames import FrameLike

__all__ = ["several", "size_of_batches"]


def several(frames: Iterable[FrameLike]) -> Iterator[FrameLike]:
    """Begin to take pictures one by one.

    Raises:
        ConfigError: It is one picture, or none at all.
    """
    if isinstance(frames, str | bytes) or not isinstance(frames, Iterable):
        raise ConfigError(f"frames: expected several pictures, got {type(frames).__name__}. Use predict for one.")
    if isinstance(frames, np.ndarray) and frames.ndim in (0, 2, 3):  # with one axis it may hold pictures as objects
        raise ConfigError(
            f"frames: expected several pictures, got an array of shape {frames.shape}. Use predict for one picture."
        )
    return iter(frames)


def size_of_batches(wanted: SupportsIndex | None, largest: int) -> int:
    """Return how many pictures go into a request: those that are wanted, or as many as the head takes.

    Raises:
        ConfigError: It is no number from 1 to ``largest``.
    """
    with suppress(TypeError):
        size = largest if wanted is None else operator.index(wanted)
        if 1 <= size <= largest and not isinstance(wanted, bool):
            return size
    raise ConfigError(f"batch_size: expected from 1 to {largest} pictures, or None, got {wanted!r}.")
