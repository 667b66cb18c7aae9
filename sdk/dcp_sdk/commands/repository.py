"""The ``dcp repository`` commands, for whoever operates the server: list, verify, select, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..bundles.manifest import Manifest
from ..errors import ConfigError
from ..serving.repository import ModelRepository
from .output import output
from .tables import readable_bytes

__all__ = ["commands"]


commands = typer.Typer(help="Look after a Triton model repository.", no_args_is_help=True)

RepositoryArgument = Annotated[Path, typer.Argument(help="Triton model repository.")]
BundleOption = Annotated[list[Path] | None, typer.Option("--bundle", help="Bundle to be served here; may be repeated.")]


@commands.command("list")
def list_(repository: RepositoryArgument, *, bundle: BundleOption = None) -> None:
    """Show each head: its versions, what it answers, what it receives, and the contract that devices ask by."""
    opened = _open(repository)
    names = {manifest.contract.digest: manifest.name for manifest in map(Manifest.load, bundle or ())}
    table = Table("model", "version", "", "task", "payload", "contract", "bundle", box=None, pad_edge=False)
    for model in opened.models:
        try:
            versions = opened.versions(model)
        except ConfigError as error:  # the others can still be shown
            table.add_row(Text(model), "", Text("damaged", "red"), Text(str(error)))
            continue
        for one in versions:
            contract = one.contract
            table.add_row(
                Text(model),
                str(contract.head.version),
                Text("served", "green") if one.served else Text("retired", "dim"),
                Text(contract.task.name),
                readable_bytes(contract.payload_bytes),
                contract.digest[:12],
                Text(names.get(contract.digest, "")),
            )
    output().print(table)


@commands.command()
def verify(repository: RepositoryArgument, *, bundle: BundleOption = None) -> None:
    """Check that files, configurations and hashes agree; the exit status is 1 if they do not."""
    opened = ModelRepository(repository)
    wanted = [Manifest.load(path).contract for path in bundle or ()]
    problems = list(opened.verify(wanted))
    for problem in problems:
        output().print(
            Text(f"PROBLEM {problem.where}: {problem.what}\n        -> {problem.remedy}", "red"), soft_wrap=True
        )
    if problems:
        raise typer.Exit(1)
    opened.require_models()
    count = sum(len(opened.versions(model)) for model in opened.models)
    also = f", {len(wanted)} bundle(s) served" if wanted else ""
    output().print(Text(f"OK {len(opened.models)} model(s), {count} version(s){also}.", "green"))


@commands.command()
def select(
    repository: RepositoryArgument,
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    versions: Annotated[list[int], typer.Argument(help="All versions to serve; any other is retired.")],
) -> None:
    """Choose the versions of a model that are served. Triton follows when it is told to load the model again."""
    opened = _open(repository)
    opened.select(model, versions)
    output().print(Text(f"{model} serves {', '.join(map(str, sorted(set(versions))))} once Triton loads it again."))


@commands.command()
def prune(
    repository: RepositoryArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, only say what would go.")] = False,
) -> None:
    """Delete the files of versions that gave way to a newer one."""
    opened = _open(repository)
    for one in opened.prune() if yes else opened.retired():
        output().print(Text(f"{'deleted' if yes else 'would delete'} {one.folder}"), soft_wrap=True)


@commands.command()
def end(
    repository: RepositoryArgument,
    model: Annotated[str, typer.Argument(help="Name of the model; Triton must have unloaded it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Delete. Without it, only say what would go.")] = False,
) -> None:
    """Delete a whole model, but for the contract of its newest version: its number must not come twice."""
    opened = ModelRepository(repository)  # which may hold nothing but what is left of an end that broke off
    opened.require_versions(model)
    if yes:
        opened.end(model)
    output().print(Text(f"{'deleted' if yes else 'would delete'} {repository / model}"), soft_wrap=True)


def _open(repository: Path) -> ModelRepository:
    opened = ModelRepository(repository)
    opened.require_models()
    return opened
