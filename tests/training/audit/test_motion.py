from __future__ import annotations

import numpy as np

from training.audit.motion import moved
from training.generated import draw_pictures


class Still:
    """A generator whose numbers move nothing."""

    def uniform(self, low: float, high: float, count: int) -> np.ndarray:
        return np.full(count, (low + high) / 2)


def test_who_does_not_move_stays_as_he_is() -> None:
    pictures = draw_pictures(3, size_px=48, seed=0)[0]
    assert np.abs(moved(pictures, Still()).astype(int) - pictures).max() <= 1  # type: ignore[arg-type]


def test_frames_are_other_pictures_of_the_same_face() -> None:
    pictures = draw_pictures(6, size_px=48, seed=0)[0]
    before = pictures.copy()
    first, second = (moved(pictures, np.random.default_rng(seed)) for seed in (1, 2))
    assert np.array_equal(pictures, before)
    assert first.shape == pictures.shape
    assert first.dtype == np.uint8
    assert not np.array_equal(first, second)
    alike = np.corrcoef(first.reshape(6, -1), pictures.reshape(6, -1))[:6, 6:]
    assert (alike.argmax(1) == np.arange(6)).all(), "each is likest to the picture that it was"
