"""A bundle's files, read once into memory, from a folder or from an archive.

The one door through which a bundle comes in: what was verified here is what is used, whoever changes the disk
afterwards, and nothing of an archive is ever extracted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Self

from ..errors import BundleError, SignatureError
from . import archive
from .signature import SIGNATURE_FILE, Signature
from .signing_keys import KeySource, TrustedKeys, load_trusted

__all__ = [
    "ARCHIVE_SUFFIX",
    "DEVICE_GRAPH_FILE",
    "HEAD_FILE",
    "HTML_REPORT_FILE",
    "MANIFEST_FILE",
    "MODEL_CARD_FILE",
    "PRIVACY_REPORT_FILE",
    "Bundle",
    "BundleLike",
    "write_atomically",
]

MANIFEST_FILE = "manifest.json"
DEVICE_GRAPH_FILE = "device.onnx"
HEAD_FILE = "head.onnx"
"""The paired head, in bundles that may answer without a server; ``export/to_onnx.py --with-head`` puts it there."""
MODEL_CARD_FILE = "MODEL_CARD.md"
PRIVACY_REPORT_FILE = "privacy_report.json"
HTML_REPORT_FILE = "privacy_report.html"
ARCHIVE_SUFFIX = ".dcp"

_MIB = 1 << 20
_LIMITS = {
    MANIFEST_FILE: _MIB,
    DEVICE_GRAPH_FILE: 512 * _MIB,
    HEAD_FILE: 512 * _MIB,
    MODEL_CARD_FILE: _MIB,
    PRIVACY_REPORT_FILE: 16 * _MIB,
    HTML_REPORT_FILE: 32 * _MIB,
    SIGNATURE_FILE: 4096,
}
"""All that a bundle may hold, and how many bytes of each are read at most."""
_LARGEST_ARCHIVE = sum(_LIMITS.values()) + _MIB


@dataclass(frozen=True)
class Bundle:
    """The files of one bundle. Made by :meth:`open`."""

    path: Path
    """Folder or archive that it was read from."""
    files: Mapping[str, bytes] = field(repr=False)
    """Content by name."""
    strangers: tuple[str, ...] = ()
    """Names in the folder that no bundle has. They are never read, and nobody vouches for them."""

    @classmethod
    def open(cls, path: str | PathLike[str], *, trusted_keys: Sequence[KeySource] | None = None) -> Self:
        """Read a bundle, and verify who signed it before anything in it is believed.

        Args:
            path: Folder, or archive that ``dcp pack`` wrote.
            trusted_keys: Ed25519 public keys (paths of PEM files, or PEM as bytes), one of which must have signed
                the bundle as it is; None takes unsigned bundles too.

        Raises:
            BundleError: It is missing, damaged or too large.
            SignatureError: No trusted key signed exactly these files, or the signature is malformed.
            ConfigError: ``trusted_keys`` are not public keys.
        """
        trusted = None if trusted_keys is None else load_trusted(trusted_keys)
        path = Path(path)
        bundle = cls(path, *_read_folder(path)) if os.path.isdir(path) else cls(path, _read_archive(path))  # noqa: PTH112 - Path's raises
        signature = bundle.signature
        if trusted is not None:
            bundle._require_signature(signature, trusted)
        return bundle

    @classmethod
    def of(cls, source: BundleLike) -> Bundle:
        """Return ``source`` itself if it is a bundle; else read it from its path, signed or not.

        Raises:
            BundleError: As :meth:`open`.
        """
        return source if isinstance(source, Bundle) else cls.open(source)

    @property
    def signature(self) -> Signature | None:
        """What ``signature.json`` says, verified only if keys were given to :meth:`open`; None without one.

        Raises:
            SignatureError: It is malformed.
        """
        data = self.files.get(SIGNATURE_FILE)
        return None if data is None else Signature.parse(data, self.path)

    def read(self, name: str) -> bytes:
        """Return one file.

        Raises:
            BundleError: The bundle has none of this name.
        """
        if name not in self.files:
            found = ", ".join(sorted(self.files)) or "none of its files"
            raise BundleError(
                f"expected a bundle with {name} at {self.path}, got {found}. "
                "Give the folder that export/to_onnx.py wrote, or its archive, or copy it again."
            )
        return self.files[name]

    def pack(self) -> bytes:
        """Write the archive of this bundle.

        Raises:
            BundleError: The folder holds something that no bundle has.
        """
        self.refuse_strangers(BundleError)
        return archive.pack(self.files)

    def save_signature(self, signature: Signature) -> None:
        """Put ``signature.json`` into the folder or archive that this bundle was read from.

        Raises:
            BundleError: The folder holds something that no bundle has, or cannot be written.
        """
        self.refuse_strangers(BundleError)
        if self.path.is_dir():
            write_atomically(self.path / SIGNATURE_FILE, signature.to_bytes())
        else:
            write_atomically(self.path, archive.pack({**self.files, SIGNATURE_FILE: signature.to_bytes()}))

    def refuse_strangers(self, kind: type[BundleError]) -> None:
        """Raise ``kind`` if the folder holds something that no bundle has."""
        if self.strangers:
            raise kind(
                f"{self.path}: expected only {', '.join(_LIMITS)}, got {', '.join(map(repr, self.strangers[:3]))} too. "
                "Remove what does not belong there."
            )

    def _require_signature(self, signature: Signature | None, trusted: TrustedKeys) -> None:
        if signature is None:
            raise SignatureError(
                f"{self.path}: expected a bundle signed by a trusted key, got an unsigned one. "
                "Sign it with `dcp sign`, or install the signed one."
            )
        signature.verify(self.files, trusted, self.path)
        self.refuse_strangers(SignatureError)


BundleLike = Bundle | str | PathLike[str]
"""A bundle that was read, or the path of its folder or archive."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, and never a part.

    Raises:
        BundleError: It cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".dcp-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)  # as other files of a bundle: nothing in it is secret
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError as error:
        raise BundleError(f"expected to write {path}, got {type(error).__name__}. Choose another place.") from error


def _read_folder(path: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise BundleError(f"expected a bundle folder at {path}, got {type(error).__name__}. Copy it again.") from error
    files = {name: _read_file(path / name, _LIMITS[name]) for name in names if name in _LIMITS}
    return files, tuple(name for name in names if name not in _LIMITS)


def _read_archive(path: Path) -> dict[str, bytes]:
    return archive.unpack(_read_file(path, _LARGEST_ARCHIVE), _LIMITS, path)


def _read_file(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():  # a pipe would never end
            raise BundleError(
                f"expected a bundle (a folder, or the archive of one) at {path}, got "
                f"{'something else' if path.exists() else 'nothing'}. Give what export/to_onnx.py or `dcp pack` wrote."
            )
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise BundleError(f"{path}: expected at most {limit} bytes, got {size}. Export the bundle again.")
            return file.read(size)
    except OSError as error:
        raise BundleError(f"expected a bundle's file at {path}, got {type(error).__name__}. Copy it again.") from error
