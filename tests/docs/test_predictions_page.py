"""``docs/predictions.md`` lists what a call gives, no more and no less."""

from __future__ import annotations

import dataclasses
import re

import pytest

from dcp_sdk import Prediction, Stats, Timings
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "predictions.md").read_text(encoding="utf-8")


def listed(name: str) -> list[str]:
    (section,) = re.findall(rf"^## `{name}`\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE)
    return re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", section, re.MULTILINE)


@pytest.mark.parametrize("kind", [Prediction, Timings, Stats])
def test_the_page_lists_every_field(kind: type) -> None:
    computed = [name for name, value in vars(kind).items() if isinstance(value, property)]
    assert sorted(listed(kind.__name__)) == sorted([field.name for field in dataclasses.fields(kind)] + computed)
