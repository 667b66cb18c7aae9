"""Who vouches for a bundle: an Ed25519 signature over the SHA-256 of each of its files.

What is signed is plain text, which ``sha256sum`` can write as well, so that an auditor needs none of this code::

    dcp bundle signature, version 1
    <64 hexadecimal digits>  MODEL_CARD.md
    <64 hexadecimal digits>  device.onnx
    …

The first line belongs to this purpose alone: a signature that the same key gave for something else never fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, ValidationError

from ..contract import Frozen
from ..errors import SignatureError
from .signing_keys import TrustedKeys, key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["SIGNATURE_FILE", "Signature", "statement"]

SIGNATURE_FILE = "signature.json"

_DOMAIN = "dcp bundle signature, version 1"
_REFUSE = "Do not use this bundle; get it again from those who signed it."


class Signature(Frozen):
    """``signature.json`` of a bundle."""

    scheme: Literal["ed25519-sha256-v1"] = "ed25519-sha256-v1"
    """How the statement is made and signed."""
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Fingerprint of the key that signed: SHA-256 of the public key."""
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """64 bytes, hexadecimal."""

    @classmethod
    def make(cls, files: Mapping[str, bytes], key: Ed25519PrivateKey) -> Self:
        """Sign the files of a bundle; an older signature among them is not looked at."""
        return cls(key_id=key_id(key.public_key()), signature=key.sign(statement(files)).hex())

    @classmethod
    def parse(cls, data: bytes, where: str | PathLike[str]) -> Self:
        """Read ``signature.json``. Nothing is verified yet.

        Args:
            data: The file.
            where: Names the bundle in messages.

        Raises:
            SignatureError: It is not a signature file as :meth:`to_bytes` writes it, byte for byte.
        """
        try:
            signature = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise SignatureError(
                f"{where}: {SIGNATURE_FILE} does not fit the schema at {place}: {first['msg']}. {_REFUSE}"
            ) from error
        if signature.to_bytes() != data:
            raise SignatureError(f"{where}: expected {SIGNATURE_FILE} as `dcp sign` writes it, got another. {_REFUSE}")
        return signature

    def to_bytes(self) -> bytes:
        """Write ``signature.json``."""
        return f"{json.dumps(self.model_dump(), indent=2)}\n".encode()

    def verify(self, files: Mapping[str, bytes], trusted: TrustedKeys, where: str | PathLike[str]) -> None:
        """Make sure that one of the ``trusted`` keys signed exactly these files.

        Args:
            files: All files of the bundle.
            trusted: Public keys by their key id.
            where: Names the bundle in messages.

        Raises:
            SignatureError: The key is another one, or a file was added, removed or changed.
        """
        from cryptography.exceptions import InvalidSignature

        if self.key_id not in trusted:
            expected = " or ".join(f"{name[:12]}…" for name in trusted)
            raise SignatureError(
                f"{where}: expected a signature by key {expected}, got one by {self.key_id[:12]}…. "
                "Install the bundle that was signed for this device, or trust that key as well."
            )
        try:
            trusted[self.key_id].verify(bytes.fromhex(self.signature), statement(files))
        except InvalidSignature as error:
            raise SignatureError(
                f"{where}: expected the files that key {self.key_id[:12]}… signed, got others: one was added, removed "
                f"or changed. {_REFUSE}"
            ) from error


def statement(files: Mapping[str, bytes]) -> bytes:
    """Write what is signed: this purpose, then hash and name of every file but the signature, sorted by name.

    Args:
        files: Content by name, of the names that a bundle may have: no two bundles give the same text.
    """
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}"
        for name, content in sorted(files.items())
        if name != SIGNATURE_FILE
    ]
    return "".join(f"{line}\n" for line in (_DOMAIN, *lines)).encode()
