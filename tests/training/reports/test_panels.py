from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk.contract import Attribute
from training import data as datasets
from training.config import Recipe
from training.data import LabelledPictures, Splits
from training.reports.panels import panel_pictures, png


def test_a_picture_survives_its_encoding() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(png(picture)), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert np.array_equal(decoded[..., ::-1], picture)


def test_drawn_pictures_may_be_shown() -> None:
    data = Recipe.load(Path("generated")).data
    splits = datasets.load(data, None)
    pictures, origin = panel_pictures(data, splits)
    assert "drawn" in origin
    assert np.array_equal(pictures, splits.val.pictures[: len(pictures)])


@pytest.mark.parametrize("recipe", ["utkface_gender_112", "paper"])
def test_no_picture_of_a_data_set_is_shown(recipe: str) -> None:
    data = Recipe.load(Path(recipe)).data
    pictures = np.random.default_rng(0).integers(0, 256, (6, data.size_px, data.size_px, 3), np.uint8)
    split = LabelledPictures(pictures, np.zeros(6, np.int64), np.zeros(6, np.int64))
    labels = Attribute(name="x", labels=("a", "b"))
    shown, origin = panel_pictures(data, Splits(split, split, labels, labels))
    assert shown.shape[1:] == pictures.shape[1:]
    assert "public domain" in origin
    assert not any(np.array_equal(one, other) for one in shown for other in pictures)
