"""Archives: one spelling for the same files, and nothing else is read. The attacks are real zip files."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcp_sdk import BundleError
from dcp_sdk.bundles import archive

LIMITS = {"a.txt": 1000, "b.txt": 1000, "c.txt": 10}
FILES = {"b.txt": b"second", "a.txt": b"first" * 20}
PACKED = archive.pack(FILES)

some_files = st.dictionaries(st.sampled_from(sorted(LIMITS)), st.binary(max_size=10))


def read(data: bytes) -> dict[str, bytes]:
    return archive.unpack(data, LIMITS, "x.dcp")


@given(some_files)
def test_what_was_packed_is_read_and_the_order_does_not_matter(files: dict[str, bytes]) -> None:
    packed = archive.pack(files)
    assert read(packed) == files
    assert archive.pack(dict(reversed(files.items()))) == packed


@given(some_files)
def test_every_zip_tool_reads_it(files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(archive.pack(files))) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == files


def test_every_single_flipped_bit_is_refused() -> None:
    for place in range(len(PACKED)):
        for bit in range(8):
            changed = bytearray(PACKED)
            changed[place] ^= 1 << bit
            with pytest.raises(BundleError):
                read(bytes(changed))


def test_every_truncation_is_refused() -> None:
    for length in range(len(PACKED)):
        with pytest.raises(BundleError):
            read(PACKED[:length])


@given(st.binary() | st.binary().map(lambda data: b"PK\x03\x04" + data))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        read(data)


@given(some_files, st.binary(min_size=1, max_size=100))
def test_nothing_may_stand_before_or_behind(files: dict[str, bytes], more: bytes) -> None:
    for data in (more + archive.pack(files), archive.pack(files) + more):
        with pytest.raises(BundleError):
            read(data)


def zipped(
    *members: tuple[zipfile.ZipInfo | str, bytes], comment: bytes = b"", method: int = zipfile.ZIP_STORED
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as writer:
        for member, content in members:
            writer.writestr(member, content)
        writer.comment = comment
    return file.getvalue()


def link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("a.txt")
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def encrypted() -> bytes:
    data = bytearray(PACKED)
    data[6] |= 1  # the flag in the file's own header …
    data[data.index(b"PK\x01\x02") + 8] |= 1  # … and in the directory
    return bytes(data)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(("a.txt", b"one"), ("a.txt", b"two"))


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "path traversal": (lambda: zipped(("../evil", b"x")), "got a file '../evil'"),
    "absolute name": (lambda: zipped(("/etc/passwd", b"x")), "got a file '/etc/passwd'"),
    "backslashes": (lambda: zipped(("..\\evil", b"x")), "got a file"),
    "unknown name": (lambda: zipped(("run.sh", b"x")), "got a file 'run.sh'"),
    "folder": (lambda: zipped(("a.txt/", b"")), "got a file 'a.txt/'"),
    "name with a NUL": (lambda: PACKED.replace(b"a.txt", b"a.tx\0"), r"got a file 'a\.tx\\x00'"),
    "terminal escapes": (lambda: PACKED.replace(b"a.txt", b"\x1b[2Jx"), r"got a file '\\x1b\[2Jx'"),
    "one name twice": (twice, "got a.txt twice"),
    "symbolic link": (lambda: zipped((link(), b"/etc/passwd")), "expected an archive as `dcp pack` writes it"),
    "encrypted": (encrypted, "encryption"),
    "compressed": (lambda: zipped(("a.txt", b"x" * 500), method=zipfile.ZIP_DEFLATED), "no compression"),
    "comment": (lambda: zipped(("a.txt", b"x"), comment=b"hello"), "comments"),
    "too large": (lambda: zipped(("c.txt", b"x" * 11)), "at most 10 bytes of c.txt, got 11"),
}


@pytest.mark.parametrize(("make", "says"), ATTACKS.values(), ids=ATTACKS)
def test_attack_is_refused(make: Callable[[], bytes], says: str) -> None:
    data = make()
    with pytest.raises(BundleError, match=says):
        read(data)


def bomb(declared: int | None) -> bytes:
    """Make a zip of about 10 MB whose only file inflates to 10 GB of zeros.

    Args:
        declared: Size that its headers state; None states the true one.
    """
    part, parts = 1 << 24, 640
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(part)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    body = block * parts + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    file = io.BytesIO()
    member = zipfile.ZipInfo("device.onnx")
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr(member, body)
        member.compress_type = zipfile.ZIP_DEFLATED
        member.file_size = part * parts if declared is None else declared
    return file.getvalue()


@pytest.mark.parametrize("declared", [None, 100], ids=["honest about its size", "says 100 bytes"])
def test_ten_gigabytes_of_zeros_are_never_inflated(declared: int | None) -> None:
    data = bomb(declared)
    if declared is None:
        with zipfile.ZipFile(io.BytesIO(data)) as opened, opened.open("device.onnx") as member:
            assert opened.getinfo("device.onnx").file_size > 10**10
            assert member.read(1 << 26) == bytes(1 << 26), "it is a real one"
    code = (
        "import resource, sys; from dcp_sdk import BundleError; from dcp_sdk.bundles import archive\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29)); resource.setrlimit(resource.RLIMIT_CPU, (10, 10))\n"
        "try: archive.unpack(sys.stdin.buffer.read(), {'device.onnx': 2**30}, 'x.dcp')\n"
        "except BundleError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=False, timeout=60)
    assert done.stdout == b"refused\n", done.stderr.decode()
