"""The ``dcp`` command. Only this module and ``bundle_commands.py`` print; only this one ends the process."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Never

import typer
from rich.console import Console
from rich.live import Live
from typer.core import TyperGroup

from . import bundle_commands
from ._version import __version__
from .bundle_commands import BundleArgument, TrustedKeyOption
from .client import PrivateClient
from .config import Device, Timeouts
from .doctor import diagnose
from .errors import ConfigError, DCPError, ServerUnavailable
from .serving import TritonServer
from .tables import finding_line, live_table, prediction_table

__all__ = ["app"]

_TIMEOUT_S = Timeouts().predict_s

_OUT = Console()
_ERR = Console(stderr=True)


class _Group(TyperGroup):
    """Shows this package's errors as one line, in one place for all commands."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DCPError as error:
            # One line of text: names in a stranger's graph could hold what a terminal obeys.
            text = "".join(sign if sign.isprintable() else " " for sign in f"{type(error).__name__}: {error}")
            _ERR.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    help="Use a model in the cloud without showing it the picture.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a local variable could be a picture
)

ServerArgument = Annotated[str, typer.Argument(help="grpc[s]://HOST:PORT, http[s]://HOST:PORT or memory://REPOSITORY.")]
DeviceOption = Annotated[Device, typer.Option(help="Where the device graph runs.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds that one picture may take.")]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("--header", help="NAME=VALUE to send with each request, such as an access key."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        _OUT.print(__version__, highlight=False)
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
def predict(
    bundle: BundleArgument,
    server: ServerArgument,
    pictures: Annotated[list[Path], typer.Argument(help="Picture files.")],
    *,
    device: DeviceOption = "auto",
    timeout_s: TimeoutOption = _TIMEOUT_S,
    header: HeaderOption = None,
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Predict what picture files show."""
    with _client(bundle, server, device, timeout_s, header, trusted_key) as client:
        predictions = [(str(picture), client.predict(picture)) for picture in pictures]
    _OUT.print(prediction_table(predictions))


@app.command()
def watch(
    bundle: BundleArgument,
    server: ServerArgument,
    source: Annotated[str, typer.Argument(help="Number of a camera, URL, video file or folder of pictures.")],
    *,
    device: DeviceOption = "auto",
    timeout_s: TimeoutOption = _TIMEOUT_S,
    header: HeaderOption = None,
    trusted_key: TrustedKeyOption = None,
    frames: Annotated[int, typer.Option(help="Stop after this many frames; 0 never stops.")] = 0,
) -> None:
    """Predict a camera, a video or a folder, and show the newest answer until Ctrl-C."""
    with _client(bundle, server, device, timeout_s, header, trusted_key) as client, Live(console=_OUT) as live:
        start = time.monotonic()
        try:
            for count, prediction in enumerate(client.stream(int(source) if source.isdigit() else source), start=1):
                rate = count / (time.monotonic() - start)
                live.update(live_table(prediction, count=count, frames_per_s=rate))
                if count == frames:
                    break
        except KeyboardInterrupt:
            live.console.print("Stopped.")


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
    key: Annotated[str | None, typer.Option(envvar="DCP_KEY", help="Key that inference needs.")] = None,
) -> None:
    """Serve a model repository with Triton until Ctrl-C."""
    models = model or sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
    if not models:
        raise ConfigError(f"expected models (folders with config.pbtxt) in {repository}, got none.")
    signal.signal(signal.SIGTERM, _interrupt)
    server = TritonServer(
        repository,
        models=models,
        venv=venv,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics=metrics,
        key=key,
        log=sys.stderr,
    )
    try:
        with server:
            _OUT.print(
                f"Serving {', '.join(models)} at {server.grpc_address} and {server.http_address}",
                highlight=False,
            )
            status = server.wait()
    except KeyboardInterrupt:
        _OUT.print("Stopped.")
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


@app.command()
def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Folder or archive of a bundle to check.")] = None,
    server: Annotated[str | None, typer.Argument(help="Address of its server to check.")] = None,
    *,
    camera: Annotated[int, typer.Option(help="Number of the camera to try.")] = 0,
    device: DeviceOption = "auto",
    trusted_key: TrustedKeyOption = None,
) -> None:
    """Look for what could go wrong here, and name the command that mends it."""
    problems = 0
    for finding in diagnose(bundle, server, camera=camera, device=device, trusted_keys=trusted_key):
        _OUT.print(finding_line(finding), soft_wrap=True)
        problems += finding.state == "problem"
    if problems:
        raise typer.Exit(1)


def _client(
    bundle: Path,
    server: str,
    device: Device,
    timeout_s: float,
    header: list[str] | None,
    trusted_key: list[Path] | None,
) -> PrivateClient:
    headers = dict(_split(item) for item in header) if header else None
    timeouts = Timeouts(predict_s=timeout_s)
    return PrivateClient(bundle, server, device=device, timeouts=timeouts, headers=headers, trusted_keys=trusted_key)


def _split(header: str) -> tuple[str, str]:
    name, separator, value = header.partition("=")
    if not (name and separator):
        raise ConfigError("expected --header NAME=VALUE, got one without a name or '='.")
    return name, value


def _interrupt(*_: object) -> Never:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app()
