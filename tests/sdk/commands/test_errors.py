"""How a command fails: every sign of the sentence is shown, and none is obeyed."""

from __future__ import annotations

import pytest
import typer

from dcp_sdk.commands.errors import errors_in_words
from dcp_sdk.commands.tables import finding_line
from dcp_sdk.doctor import Finding
from dcp_sdk.errors import ConfigError


def test_the_sentence_is_shown_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    """Brackets are no markup, and a stranger's name moves no cursor and begins no line."""

    @errors_in_words()
    def command(name: str) -> None:
        raise ConfigError(f"expected the extra [fuzz], got {name}")

    with pytest.raises(typer.Exit) as ended:
        command("\x1b[2J\nof a stranger")
    assert ended.value.exit_code == 2
    assert capfd.readouterr().err == "ConfigError: expected the extra [fuzz], got  [2J of a stranger\n"


def test_what_a_doctor_finds_is_text_too() -> None:
    shown = finding_line(Finding("server", "ok", "it says \x1b[2J\nOK all is well", "ask\x07"))
    assert shown.plain == "OK      server: it says  [2J OK all is well\n        -> ask "


def test_what_is_not_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), errors_in_words():
        raise ZeroDivisionError
