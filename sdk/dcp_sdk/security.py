"""How device and server know each other: certificates for TLS, and the key of a restricted endpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import ConfigDict, Field, SecretStr, model_validator

from .config import Options, read_key_file
from .errors import ConfigError

__all__ = ["Security"]

_BLANK = b" \t\r\n\0"


class Security(Options):
    """Certificates and access key. It holds where secrets lie, and never a secret itself.

    Certificates are read when a connection is made, the key then and, over HTTP, for each request: what is renewed is
    taken up. What cannot be read when the client is made is a :class:`ConfigError`; later it is :class:`TLSFailed` or
    :class:`AccessDenied`, so that other servers or the head on the device answer until it can be read again.

    Raises:
        ConfigError: Options contradict each other. The message does not repeat what was given.
    """

    # What somebody puts into the wrong field could be the key itself.
    model_config = ConfigDict(hide_input_in_errors=True)

    ca_file: Path | None = None
    """PEM file of the authorities that may vouch for the server, and nobody else; None takes the public ones."""
    certificate_file: Path | None = None
    """PEM file of this device's own certificate, with those between it and its authority (mutual TLS)."""
    certificate_key_file: Path | None = None
    """PEM file of the certificate's private key, without a passphrase."""
    api_key_variable: str | None = None
    """Environment variable that holds the access key of Triton's restricted protocols."""
    api_key_file: Path | None = None
    """File that holds the access key; white space around it is ignored."""
    api_key_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "dcp-key"
    """Name of the key, as the server's flags state it: ``--http-restricted-api=…:NAME=…``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.certificate_file is None) != (self.certificate_key_file is None):
            raise ValueError("expected certificate_file and certificate_key_file, got one without the other")
        if self.api_key_variable is not None and self.api_key_file is not None:
            raise ValueError("expected api_key_variable or api_key_file, got both")
        return self

    @property
    def concerns_tls(self) -> bool:
        """Whether anything here has a meaning with TLS only."""
        return self.ca_file is not None or self.certificate_file is not None

    def api_key(self) -> SecretStr | None:
        """Read the access key; None if there should be none.

        Raises:
            ConfigError: The variable or the file is missing or empty.
        """
        if self.api_key_variable is not None:
            key = os.environ.get(self.api_key_variable, "")
            source = "the environment variable of Security.api_key_variable"
        elif self.api_key_file is not None:
            key = _read(self.api_key_file).decode("utf-8", errors="replace")
            source = "the file of Security.api_key_file"
        else:
            return None
        if not key.strip():
            raise ConfigError(f"expected an access key in {source}, got nothing.")
        return SecretStr(key.strip())

    def authorities(self) -> bytes | None:
        """Read :attr:`ca_file`; None for the public authorities.

        Raises:
            ConfigError: It cannot be read, or is blank, as a file is while it is written or after power was lost.
        """
        if self.ca_file is None:
            return None
        content = _read(self.ca_file)
        if not content.strip(_BLANK):  # Python and gRPC take nothing for "the public ones"
            raise ConfigError(f"Security: expected the certificates of authorities in {self.ca_file}, got nothing.")
        return content

    def identity(self) -> tuple[bytes, bytes] | None:
        """Read this device's certificate and its private key; None if it has none."""
        if self.certificate_file is None or self.certificate_key_file is None:
            return None
        return _read(self.certificate_file), _read(self.certificate_key_file)


def _read(path: Path) -> bytes:
    return read_key_file(path, "Security: expected a file", "Put it there, or name another.")
