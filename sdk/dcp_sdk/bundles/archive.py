"""The archive form of a bundle (``.dcp``): a zip of stored files, of which there is exactly one for the same files.

Reading takes names and sizes, then packs again and compares. So all that :func:`pack` does not write is refused in one
place: compression and with it every zip bomb, encryption, links, comments, extra fields, bytes before, between and
after the files, wrong checksums. No decompressor ever sees a stranger's bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from os import PathLike

from ..errors import BundleError

__all__ = ["pack", "unpack"]

# The three records of PKWARE's APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16.
_LOCAL, _LOCAL_MARK = struct.Struct("<4s5H3I2H"), b"PK\x03\x04"
_CENTRAL, _CENTRAL_MARK = struct.Struct("<4s6H3I5H2I"), b"PK\x01\x02"
_END, _END_MARK = struct.Struct("<4s4H2IH"), b"PK\x05\x06"
_VERSION, _FLAGS, _STORED, _TIME, _DATE = 10, 0, 0, 0, 0x21
"""Zip 1.0, no flags, not compressed, midnight of 1980-01-01: the same for all, so that equal files give equal bytes."""
_UNIX, _REGULAR_FILE = 3 << 8, 0o100644 << 16


def pack(files: Mapping[str, bytes]) -> bytes:
    """Write the archive of ``files``, sorted by name: equal files give equal bytes, on every machine.

    Args:
        files: Content by name; names are ASCII, all of it together is below 4 GiB.
    """
    members, directory, offset = [], [], 0
    for name, content in sorted(files.items()):
        entry = name.encode("ascii")
        sizes = (zlib.crc32(content), len(content), len(content), len(entry), 0)
        common = (_VERSION, _FLAGS, _STORED, _TIME, _DATE, *sizes)
        head = _LOCAL.pack(_LOCAL_MARK, *common) + entry
        members += [head, content]
        directory.append(
            _CENTRAL.pack(_CENTRAL_MARK, _UNIX | _VERSION, *common, 0, 0, 0, _REGULAR_FILE, offset) + entry
        )
        offset += len(head) + len(content)
    listing, count = b"".join(directory), len(directory)
    return b"".join([*members, listing, _END.pack(_END_MARK, 0, 0, count, count, len(listing), offset, 0)])


def unpack(data: bytes, limits: Mapping[str, int], where: str | PathLike[str]) -> dict[str, bytes]:
    """Read what :func:`pack` wrote.

    Args:
        data: The archive.
        limits: The names that may appear, each with its largest size in bytes.
        where: Names the archive in messages.

    Raises:
        BundleError: Another name, a name twice, a file too large, or any other byte than ``pack`` would write.
    """
    files: dict[str, bytes] = {}
    start = 0
    while data.startswith(_LOCAL_MARK, start) and len(data) - start >= _LOCAL.size:
        *_, size, name_length, _extra = _LOCAL.unpack_from(data, start)
        start += _LOCAL.size
        name = data[start : start + name_length].decode("latin-1")
        start += name_length
        _check_member(name, size, files, limits, where)
        files[name] = data[start : start + size]
        start += size
    if pack(files) != data:
        raise BundleError(
            f"{where}: expected an archive as `dcp pack` writes it (complete; no compression, encryption, links or "
            "comments), got another. Copy it again, or pack the folder with `dcp pack`."
        )
    return files


def _check_member(
    name: str, size: int, before: Mapping[str, bytes], limits: Mapping[str, int], where: str | PathLike[str]
) -> None:
    again = "Do not install it; get the bundle from where it was exported."
    if name not in limits:
        raise BundleError(f"{where}: expected only {', '.join(sorted(limits))}, got a file {name[:80]!r}. {again}")
    if name in before:
        raise BundleError(f"{where}: expected each file once, got {name} twice. {again}")
    if size > limits[name]:
        raise BundleError(f"{where}: expected at most {limits[name]} bytes of {name}, got {size}. {again}")
