"""Keys that sign bundles: Ed25519, in PEM files.

``cryptography`` and not model-signing or sigstore: a kiosk verifies offline, with one small dependency and without a
transparency log. It is imported late: who verifies nothing does not wait for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import read_key_file
from ..errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "PASSPHRASE_VARIABLE",
    "KeySource",
    "TrustedKeys",
    "generate",
    "key_id",
    "load_private",
    "load_public",
    "load_trusted",
]

KeySource = str | PathLike[str] | bytes
"""A public key: path of a PEM file, or the PEM text itself as bytes."""

TrustedKeys = Mapping[str, "Ed25519PublicKey"]
"""Public keys by their key id."""

PASSPHRASE_VARIABLE = "DCP_SIGNING_PASSPHRASE"
"""Environment variable with the passphrase of a private key. Never an argument: other processes see those."""

_MAKE_ONE = "Make a pair with `dcp keygen`."


def generate(private: Path, public: Path, passphrase: str | None = None) -> str:
    """Write a new pair of keys and return its key id.

    Args:
        private: New file, readable by its owner alone.
        public: New file, to be given to the devices.
        passphrase: Encrypts the private key; None leaves it in clear.

    Raises:
        ConfigError: One of the files exists, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    protection: pem.KeySerializationEncryption = pem.NoEncryption()
    if passphrase:
        protection = pem.BestAvailableEncryption(os.fsencode(passphrase))
    for path in (private, public):
        if path.exists():
            raise ConfigError(f"expected a new file at {path}, got an existing one. Keys are never overwritten.")
    _write_new(private, key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, protection), 0o600)
    spki = pem.PublicFormat.SubjectPublicKeyInfo
    _write_new(public, key.public_key().public_bytes(pem.Encoding.PEM, spki), 0o644)
    return key_id(key.public_key())


def key_id(key: Ed25519PublicKey) -> str:
    """Fingerprint of a public key: SHA-256 of its 32 bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def load_private(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: PEM file.
        passphrase: Of the file, where it is encrypted.

    Raises:
        ConfigError: It is not there, is not an Ed25519 key, or the passphrase does not fit.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    text = _read(path)
    try:
        key = serialization.load_pem_private_key(text, os.fsencode(passphrase) if passphrase else None)
    except TypeError as error:  # its word for a passphrase that is missing, or that there is no need of
        raise ConfigError(
            f"expected ${PASSPHRASE_VARIABLE} to be set if {path} is encrypted, and only then. Set it, or unset it."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The cause is left out on purpose: it may quote what stands in the file.
        raise ConfigError(
            f"expected an Ed25519 private key in {path} that ${PASSPHRASE_VARIABLE} opens, if it is encrypted; got "
            f"{type(error).__name__}. {_MAKE_ONE}"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"expected an Ed25519 private key in {path}, got one of another kind. {_MAKE_ONE}")
    return key


def load_public(source: KeySource) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        ConfigError: It is not there, or is not an Ed25519 public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    text, where = (source, "the given bytes") if isinstance(source, bytes) else (_read(Path(source)), str(source))
    try:
        key = serialization.load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):  # not chained: the text may be a private key
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"expected an Ed25519 public key (PEM) in {where}, got something else. {_MAKE_ONE}")
    return key


def load_trusted(sources: Sequence[KeySource]) -> TrustedKeys:
    """Read the public keys that a device trusts.

    Raises:
        ConfigError: There is none, it is one and not a list (the characters of a path are no keys), or one of them
            is not an Ed25519 public key.
    """
    if isinstance(sources, str | bytes | PathLike) or not sources:
        got = type(sources).__name__ if sources else "none"
        raise ConfigError(
            f"trusted_keys: expected a list of at least one public key, or None, got {got}. Write trusted_keys=[KEY]."
        )
    return {key_id(key): key for key in map(load_public, sources)}


def _read(path: Path) -> bytes:
    return read_key_file(path, "expected a key", _MAKE_ONE)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        # Exclusive, and with its mode from the first moment: no link is followed, nobody reads in between.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(
            f"expected a new file at {path}, got {type(error).__name__}. Choose another place."
        ) from error
