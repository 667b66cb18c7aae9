"""What a command prints is cut at a terminal's edge, and nowhere else."""

from __future__ import annotations

from typer.testing import CliRunner

from dcp_sdk.cli import app
from tests.tiny import Tiny


def inspect(tiny: Tiny, columns: str | None) -> list[str]:
    return CliRunner().invoke(app, ["inspect", str(tiny.bundle)], env={"COLUMNS": columns}).output.splitlines()


def test_a_program_that_reads_it_gets_each_value_in_one_piece(tiny: Tiny) -> None:
    assert any(line.split() == ["digest", tiny.manifest.contract.digest] for line in inspect(tiny, None))


def test_a_narrow_screen_is_kept_to(tiny: Tiny) -> None:
    table = [line for line in inspect(tiny, "60") if line[:1] not in "/N"]  # those are the terminal's to wrap
    assert max(map(len, table)) <= 60
