from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcp_sdk import FrameError
from dcp_sdk._opencv import LARGEST_PICTURE_PIXELS
from dcp_sdk.contract import ImagePreprocessing
from dcp_sdk.preprocess import check_frame, preprocess

SIZE = 16
SPEC = ImagePreprocessing(size_px=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
sides = st.integers(1, 70)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), np.uint8)


@given(sides, sides)
def test_any_picture_becomes_one_square_of_its_own_memory(height: int, width: int) -> None:
    frame = noise(height, width)
    square = preprocess(frame, SPEC)
    assert square.shape == (SIZE, SIZE, 3)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous
    assert not np.shares_memory(square, frame)
    assert frame.min() <= square.min() <= square.max() <= frame.max()


@given(sides, sides, st.tuples(*[st.integers(0, 255)] * 3))
def test_a_plain_picture_stays_plain(height: int, width: int, colour: tuple[int, int, int]) -> None:
    frame = np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))
    assert (preprocess(frame, SPEC) == np.array(colour)).all()


@given(sides, st.integers(0, 20), st.integers(0, 20))
def test_only_the_centred_square_counts(side: int, left: int, right: int) -> None:
    square = noise(side, side)
    margin = min(left, right)
    wide = np.concatenate([noise(side, margin), square, noise(side, margin)], axis=1)
    np.testing.assert_array_equal(preprocess(wide, SPEC), preprocess(square, SPEC))
    tall = wide.transpose(1, 0, 2)
    np.testing.assert_array_equal(preprocess(tall, SPEC), preprocess(square.transpose(1, 0, 2), SPEC))


def test_the_right_size_is_left_alone() -> None:
    frame = noise(SIZE, SIZE)
    np.testing.assert_array_equal(preprocess(frame, SPEC), frame)


def test_shrinking_averages() -> None:
    frame = noise(2 * SIZE, 2 * SIZE)
    mean = frame.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(preprocess(frame, SPEC), mean, atol=0.51)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (np.zeros((4, 4), np.uint8), "grey"),
        (np.zeros((4, 4, 1), np.uint8), "grey"),
        (np.zeros((4, 4, 4), np.uint8), "RGBA"),
        (np.zeros((2, 4, 5), np.uint8), "got shape"),
        (np.zeros((3, 4, 5), np.uint8), r"channels first .*transpose\(1, 2, 0\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "One picture at a time"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        (np.zeros((4, 4, 3), np.int64), "got int64"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4, 0, 3), np.uint8), "empty"),
        (np.broadcast_to(np.uint8(0), (LARGEST_PICTURE_PIXELS + 1, 1, 3)), r"at most [\d,]+ pixels.*Make it smaller"),
        ([[[0, 0, 0]]], "got list"),
        (None, "got NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_a_picture(frame: object, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        check_frame(frame)


def test_the_largest_picture_is_one() -> None:
    largest = np.broadcast_to(np.uint8(0), (LARGEST_PICTURE_PIXELS, 1, 3))
    assert check_frame(largest) is largest
