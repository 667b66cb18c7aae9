"""``docs/errors.md`` lists the errors that there are, no more and no fewer."""

from __future__ import annotations

import re

from dcp_sdk import errors
from tests.tiny import ROOT


def test_the_page_lists_every_class() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    classes = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert sorted(listed) == sorted(classes) == sorted(errors.__all__)
