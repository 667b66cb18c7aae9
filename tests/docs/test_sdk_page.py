"""``docs/sdk.md`` lists the options that there are, with their defaults, no more and no fewer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import typer

from dcp_sdk import AsyncPrivateClient, Camera, PrivateClient
from dcp_sdk.cli import app
from dcp_sdk.commands.bundle import PASSPHRASE_VARIABLE
from dcp_sdk.commands.connecting import KEY_VARIABLE
from dcp_sdk.config import Options
from dcp_sdk.telemetry import Telemetry
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
Defaults = dict[str, str]


def listed(name: str) -> Defaults:
    """Read the tables of all sections whose heading names ``name``: option and default."""
    rows: Defaults = {}
    for heading, section in re.findall(r"^### (.+)\n((?:(?!^#).*\n)*)", PAGE, re.MULTILINE):
        if f"`{name}`" in heading:
            found = re.findall(r"^\| `([\w-]+)` \| (.+?) \| .+ \| .+ \|$", section, re.MULTILINE)
            assert not rows.keys() & dict(found), "twice"
            rows |= dict(found)
    return rows


def of_signature(function: Callable[..., Any]) -> Defaults:
    """Tell each argument's default as the page writes it."""
    arguments = inspect.signature(function).parameters.values()
    named = [one for one in arguments if one.name != "self" and one.kind is not one.VAR_KEYWORD]
    return {one.name: written(one.default, one.empty) for one in named}


def of_options(kind: type[Options]) -> Defaults:
    fields = kind.model_fields.items()
    return {name: "required" if field.is_required() else written(field.default) for name, field in fields}


def of_command(command: Any) -> Defaults:
    given = {}
    for one in command.params:
        name = one.name.upper() if one.param_type_name == "argument" else one.opts[0]
        given[name] = "required" if one.required else "none" if one.default is None else f"`{one.default}`"
    return given


def written(default: object, required: object = inspect.Parameter.empty) -> str:
    if default is required:
        return "required"
    if isinstance(default, Options):
        assert default == type(default)()
        return f"`{type(default).__name__}()`"
    return f"`{default!r}`"


def commands(group: Any, name: str) -> dict[str, Any]:
    """Find all commands, those of groups included, by their full names."""
    if not (inside := getattr(group, "commands", None)):
        return {name: group}
    return {full: one for key, command in inside.items() for full, one in commands(command, f"{name} {key}").items()}


EXPECTED: dict[str, Defaults] = {
    "PrivateClient": of_signature(PrivateClient),
    "AsyncPrivateClient": of_signature(AsyncPrivateClient),
    "PrivateClient.predict_batch": of_signature(PrivateClient.predict_batch),
    "PrivateClient.stream": of_signature(PrivateClient.stream),
    "Camera": of_signature(Camera),
    **{kind.__name__: of_options(kind) for kind in Options.__subclasses__() if kind.__module__.startswith("dcp_sdk")},
    "Telemetry": of_signature(Telemetry),
    **{name: of_command(command) for name, command in commands(typer.main.get_command(app), "dcp").items()},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_page_lists_every_option(name: str) -> None:
    assert listed(name) == EXPECTED[name]


def test_the_page_names_nothing_else() -> None:
    headings = "\n".join(re.findall(r"^### (.+)$", PAGE, re.MULTILINE))
    assert set(re.findall(r"`([^`]+)`", headings)) == set(EXPECTED)
    for variable in (KEY_VARIABLE, PASSPHRASE_VARIABLE):
        assert f"`{variable}`" in PAGE


def test_both_clients_take_the_same() -> None:
    for name in ("predict_batch", "stream"):
        assert of_signature(getattr(AsyncPrivateClient, name)) == of_signature(getattr(PrivateClient, name))


def test_the_check_sees_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: the page without a row, or with another default, is found out."""
    for before, after in (("| `workers` | `8` |", "| `workers` | `9` |"), ("| `--calls` | `200` |", "| calls |")):
        assert before in PAGE
        monkeypatch.setitem(globals(), "PAGE", PAGE.replace(before, after))
    assert listed("AsyncPrivateClient") != EXPECTED["AsyncPrivateClient"]
    assert listed("dcp bench") != EXPECTED["dcp bench"]
