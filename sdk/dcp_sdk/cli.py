"""The ``dcp`` command. The only module that prints, and that ends the process."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Never

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text
from typer.core import TyperGroup

from ._version import __version__
from .client import PrivateClient
from .config import Device, Timeouts
from .contract import DEVICE_GRAPH_FILE, PRIVACY_REPORT_FILE, Manifest, sha256_file
from .doctor import diagnose
from .errors import BundleError, ConfigError, DCPError, ServerUnavailable
from .privacy_report import PrivacyReport
from .serving import TritonServer
from .tables import contract_table, finding_line, live_table, prediction_table, privacy_table

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
            _ERR.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    help="Use a model in the cloud without showing it the picture.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a local variable could be a picture
)

BundleArgument = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
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
) -> None:
    """Predict what picture files show."""
    with _client(bundle, server, device, timeout_s, header) as client:
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
    frames: Annotated[int, typer.Option(help="Stop after this many frames; 0 never stops.")] = 0,
) -> None:
    """Predict a camera, a video or a folder, and show the newest answer until Ctrl-C."""
    with _client(bundle, server, device, timeout_s, header) as client, Live(console=_OUT) as live:
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


@app.command()
def inspect(bundle: BundleArgument) -> None:
    """Show what a bundle sends and answers, and check that it is unchanged."""
    manifest = Manifest.load(bundle)
    graph = bundle / DEVICE_GRAPH_FILE
    expected = manifest.contract.device_sha256
    if not graph.is_file() or sha256_file(graph) != expected:
        raise BundleError(
            f"expected {graph} with SHA-256 {expected[:12]}…, got another or none. Copy the bundle again."
        )
    _OUT.print(contract_table(manifest))
    _OUT.print(f"\n[green]{graph} is the file that was exported.[/]", highlight=False)
    report = PrivacyReport.load(bundle, manifest.contract)
    if report is None:
        _OUT.print(f"[yellow]No privacy report ({PRIVACY_REPORT_FILE}): how much leaks was not measured.[/]")
        return
    style = "green" if report.protected else "red"
    _OUT.print(Text(f"\n{report.verdict}", style), highlight=False)
    _OUT.print(privacy_table(report))


@app.command()
def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of a bundle to check.")] = None,
    server: Annotated[str | None, typer.Argument(help="Address of its server to check.")] = None,
    *,
    camera: Annotated[int, typer.Option(help="Number of the camera to try.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Look for what could go wrong here, and name the command that mends it."""
    problems = 0
    for finding in diagnose(bundle, server, camera=camera, device=device):
        _OUT.print(finding_line(finding), soft_wrap=True)
        problems += finding.state == "problem"
    if problems:
        raise typer.Exit(1)


def _client(bundle: Path, server: str, device: Device, timeout_s: float, header: list[str] | None) -> PrivateClient:
    headers = dict(_split(item) for item in header) if header else None
    return PrivateClient(bundle, server, device=device, timeouts=Timeouts(predict_s=timeout_s), headers=headers)


def _split(header: str) -> tuple[str, str]:
    name, separator, value = header.partition("=")
    if not (name and separator):
        raise ConfigError("expected --header NAME=VALUE, got one without a name or '='.")
    return name, value


def _interrupt(*_: object) -> Never:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app()
