from __future__ import annotations

import pytest

from dcp_sdk import ConfigError
from dcp_sdk.commands import screens


def test_a_display_that_never_answers_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(screens, "_PROBE_S", 0.2)
    with pytest.raises(ConfigError, match=r"--window: expected a display .* got none within 0\.2 s.*--save"):
        screens.Window("never seen")
