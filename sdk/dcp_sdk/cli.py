"""The ``dcp`` command. Only this module and those of its commands print; only this one ends the process."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Never

import typer
from typer.core import TyperGroup

from ._version import __version__
from .client import PrivateClient
from .commands import bundle as bundle_commands
from .commands import repository as repository_commands
from .commands.bundle import TrustedKeyOption
from .commands.connecting import (
    APIKeyFileOption,
    CAFileOption,
    CertificateFileOption,
    CertificateKeyFileOption,
    DeviceOption,
    HeaderOption,
    connected,
    headers_of,
    key_source,
    security_of,
)
from .commands.errors import errors_in_words, show_error
from .commands.output import output
from .commands.tables import budget_table, finding_line, prediction_table
from .commands.watch import watch
from .doctor import diagnose
from .errors import DCPError, ServerUnavailable
from .predictions import Prediction
from .security import Security
from .serving.server import TritonServer

__all__ = ["app"]


_ADMIN_KEY_VARIABLE = "DCP_ADMIN_KEY"


class _Group(TyperGroup):
    """Shows this package's errors, in one place for all commands."""

    def invoke(self, ctx: Any) -> Any:
        with errors_in_words():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group,
    help="Use a model in the cloud without showing it the picture.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a local variable could be a picture
)


def _show_version(wanted: bool) -> None:
    if wanted:
        output().print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
@connected
def predict(client: PrivateClient, pictures: Annotated[list[Path], typer.Argument(help="Picture files.")]) -> None:
    """Predict what picture files show. One that fails has its error in its row; the status is 2 then."""
    rows: list[tuple[str, Prediction | DCPError]] = []
    for picture in pictures:
        try:
            rows.append((str(picture), client.predict(picture)))
        except DCPError as error:
            rows.append((str(picture), error))
            show_error(error)
    output().print(prediction_table(rows))
    if any(isinstance(answer, DCPError) for _, answer in rows):
        raise typer.Exit(2)


app.command()(watch)


@app.command()
@connected
def bench(
    client: PrivateClient, *, calls: Annotated[int, typer.Option(help="How often to make each of the calls.")] = 200
) -> None:
    """Show what a call costs, stage by stage, and what of it the SDK adds to a bare Triton client."""
    from .bench import measure  # late: it loads gRPC, which takes longer than the rest of the package

    output().print(budget_table(measure(client, calls=calls)))


@app.command()
def serve(
    repository: Annotated[Path, typer.Argument(help="Triton model repository.")],
    *,
    model: Annotated[list[str] | None, typer.Option(help="Model to load; by default all that are there.")] = None,
    venv: Annotated[Path, typer.Option(help="Environment with nvidia-pytriton.")] = Path(".venv-triton"),
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Port for gRPC; 0 takes a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Port for HTTP; 0 takes a free one.")] = 8000,
    metrics: Annotated[bool, typer.Option(help="Serve Prometheus metrics.")] = False,
    metrics_port: Annotated[int, typer.Option(help="Port for metrics; 0 takes a free one.")] = 8002,
    api_key_file: APIKeyFileOption = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(help=f"File of the key for loading and unloading models; otherwise ${_ADMIN_KEY_VARIABLE}."),
    ] = None,
) -> None:
    """Serve a model repository with Triton until Ctrl-C. With an access key, inference needs it.

    Models can be loaded and unloaded with the admin key; without one nobody can.
    """
    key, admin_key = (
        Security(**source).api_key()
        for source in (key_source(api_key_file), key_source(admin_key_file, _ADMIN_KEY_VARIABLE))
    )
    signal.signal(signal.SIGTERM, _interrupt)
    server = TritonServer(
        repository,
        models=model,
        venv=venv,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics=metrics,
        metrics_port=metrics_port,
        key=None if key is None else key.get_secret_value(),
        admin_key=None if admin_key is None else admin_key.get_secret_value(),
        log=sys.stderr,
    )
    try:
        with server:
            output().print(f"Serving {', '.join(server.models)} at {server.grpc_address} and {server.http_address}")
            if server.metrics_address is not None:
                output().print(f"Metrics at {server.metrics_address}")
            status = server.wait()
    except KeyboardInterrupt:
        output().print("Stopped.")
    else:
        raise ServerUnavailable(f"tritonserver ended by itself with status {status}. Read its log above.")


for _command in (
    bundle_commands.inspect,
    bundle_commands.pack,
    bundle_commands.keygen,
    bundle_commands.sign,
    bundle_commands.verify,
):
    app.command()(_command)

app.add_typer(repository_commands.commands, name="repository")


@app.command()
def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Folder or archive of a bundle to check.")] = None,
    server: Annotated[str | None, typer.Argument(help="Address of its server to check.")] = None,
    *,
    camera: Annotated[str, typer.Option(help="Number or URL of the camera to try.")] = "0",
    device: DeviceOption = "auto",
    header: HeaderOption = None,
    trusted_key: TrustedKeyOption = None,
    ca_file: CAFileOption = None,
    certificate_file: CertificateFileOption = None,
    certificate_key_file: CertificateKeyFileOption = None,
    api_key_file: APIKeyFileOption = None,
) -> None:
    """Look for what could go wrong here, and name the command that mends it."""
    problems = 0
    findings = diagnose(
        bundle,
        server,
        camera=int(camera) if camera.isdecimal() else camera,
        device=device,
        trusted_keys=trusted_key,
        headers=headers_of(header),
        security=security_of(ca_file, certificate_file, certificate_key_file, api_key_file),
    )
    for finding in findings:
        output().print(finding_line(finding), soft_wrap=True)
        problems += finding.state == "problem"
    if problems:
        raise typer.Exit(1)


def _interrupt(*_: object) -> Never:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app()
