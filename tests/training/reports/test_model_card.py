"""The card tells how to train the bundle again, and only what does."""

from __future__ import annotations

from typing import Any

import pytest

from dcp_sdk import Manifest
from tests.tiny import SHIPPED
from training.config import Recipe
from training.reports.model_card import render

RECIPE = Recipe.load("utkface_gender_64", [])


@pytest.mark.parametrize(
    ("changes", "seed", "told"),
    [
        ({}, 0, "--recipe utkface_gender_64 --data DIR"),
        ({"seed": 3}, 3, "--recipe utkface_gender_64 --set seed=3 --data DIR"),
        ({"precision": "32-true"}, 0, "--recipe FILE --data DIR"),
        ({"name": "utkface_gender_64-none-r00-s0"}, 0, "--recipe FILE --data DIR"),
    ],
)
def test_the_command_trains_it_again(changes: dict[str, Any], seed: int, told: str) -> None:
    settings = RECIPE.model_copy(update=changes)
    shipped = Manifest.load(SHIPPED)
    origin = shipped.provenance.model_copy(
        update={"recipe": settings.name, "seed": seed, "settings": settings.model_dump(mode="json")}
    )
    assert told in render(shipped.model_copy(update={"provenance": origin}))
