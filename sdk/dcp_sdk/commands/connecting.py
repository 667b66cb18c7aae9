"""What the ``dcp`` commands that predict have in common: which bundle, which server, and how to reach it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from ..client import PrivateClient
from ..config import Device, Timeouts
from ..errors import ConfigError
from ..security import Security
from .bundle import BundleArgument, TrustedKeyOption

__all__ = [
    "KEY_VARIABLE",
    "APIKeyFileOption",
    "CAFileOption",
    "CertificateFileOption",
    "CertificateKeyFileOption",
    "DeviceOption",
    "HeaderOption",
    "connect",
    "connected",
    "headers_of",
    "key_source",
    "security_of",
]

KEY_VARIABLE = "DCP_KEY"
"""Environment variable of the access key, for those who serve and those who predict."""

_TIMEOUT_S = Timeouts().predict_s

DeviceOption = Annotated[Device, typer.Option(help="Where the device graph runs.")]
ServerArgument = Annotated[str, typer.Argument(help="grpc[s]://HOST:PORT, http[s]://HOST:PORT or memory://REPOSITORY.")]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("--header", help="NAME=VALUE to send with each request; not for keys: others see a command line."),
]
CAFileOption = Annotated[Path | None, typer.Option(help="PEM file of the authorities that may vouch for the server.")]
CertificateFileOption = Annotated[Path | None, typer.Option(help="PEM file of this device's own certificate.")]
CertificateKeyFileOption = Annotated[Path | None, typer.Option(help="PEM file of that certificate's private key.")]
APIKeyFileOption = Annotated[
    Path | None,
    typer.Option(help=f"File of the server's access key; otherwise ${KEY_VARIABLE}, if it is set."),
]


def key_source(file: Path | None, variable: str = KEY_VARIABLE) -> dict[str, Any]:
    """Return the option of :class:`Security` for an access key: the file, or the variable if it is set, or none."""
    if file is not None:
        return {"api_key_file": file}
    return {"api_key_variable": variable} if os.environ.get(variable) else {}


def connect(
    bundle: BundleArgument,
    server: ServerArgument,
    *,
    device: DeviceOption = "auto",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds that one picture may take.")] = _TIMEOUT_S,
    header: HeaderOption = None,
    trusted_key: TrustedKeyOption = None,
    ca_file: CAFileOption = None,
    certificate_file: CertificateFileOption = None,
    certificate_key_file: CertificateKeyFileOption = None,
    api_key_file: APIKeyFileOption = None,
) -> PrivateClient:
    """Make the client that these options describe."""
    return PrivateClient(
        bundle,
        server,
        device=device,
        timeouts=Timeouts(predict_s=timeout_s),
        headers=headers_of(header),
        trusted_keys=trusted_key,
        security=security_of(ca_file, certificate_file, certificate_key_file, api_key_file),
    )


def headers_of(given: list[str] | None) -> dict[str, str] | None:
    """Read ``NAME=VALUE``.

    Raises:
        ConfigError: One is something else.
    """
    return dict(map(_split, given)) if given else None


def security_of(
    ca_file: Path | None, certificate_file: Path | None, certificate_key_file: Path | None, api_key_file: Path | None
) -> Security | None:
    """Put together what the options say; None if they say nothing.

    Raises:
        ConfigError: They contradict each other.
    """
    given: dict[str, Any] = {
        "ca_file": ca_file,
        "certificate_file": certificate_file,
        "certificate_key_file": certificate_key_file,
        **key_source(api_key_file),
    }
    return Security(**given) if any(given.values()) else None


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command begin with the arguments and options of :func:`connect`, and give it the client in their place."""
    common = list(inspect.signature(connect, eval_str=True).parameters.values())
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    positional = [one for one in (*common, *own) if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    options = [one for one in (*common, *own) if one.kind is inspect.Parameter.KEYWORD_ONLY]

    @wraps(command)
    def run(**values: Any) -> None:
        with connect(**{one.name: values.pop(one.name) for one in common}) as client:
            command(client, **values)

    run.__signature__ = inspect.Signature([*positional, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in (*positional, *options)}
    del run.__wrapped__
    return run


def _split(header: str) -> tuple[str, str]:
    name, separator, value = header.partition("=")
    if not (name and separator):
        raise ConfigError("expected --header NAME=VALUE, got one without a name or '='.")
    return name, value
