"""What is fed with hostile bytes. A target returns, or raises what it found; errors of the SDK are caught."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np

from dcp_sdk import BundleError, ContractMismatch, FrameError, Manifest, ServerError, ServerRejected, load_image
from dcp_sdk.bundles.archive import pack
from dcp_sdk.bundles.bundle import DEVICE_GRAPH_FILE, MANIFEST_FILE, Bundle
from dcp_sdk.bundles.onnx_check import check_graph
from dcp_sdk.bundles.privacy_report import PrivacyReport
from dcp_sdk.contract import Contract
from dcp_sdk.predictions import decode_answer
from dcp_sdk.preprocess import preprocess
from dcp_sdk.transport import Transport
from dcp_sdk.transport.triton_grpc import GrpcTransport
from dcp_sdk.transport.triton_http import HttpTransport
from tests import tiny
from tests.fuzz import liars
from tests.tiny import ROOT, SHIPPED

__all__ = ["CASES", "TARGETS", "seeds"]

CASES = Path(__file__).parent / "cases"
"""A folder for each target, with the inputs that once found something."""

Target = Callable[[bytes], None]

_TIMEOUT_S, _SLACK_S = 2.0, 3.0
_CONTRACT = Manifest.load(SHIPPED).contract
_PICTURE = ROOT / "examples" / "data" / "astronaut.jpg"


@contextlib.contextmanager
def _manifest() -> Iterator[Target]:
    """Read a file of any bytes or, after a zero byte, the shipped one with one value replaced."""
    shipped = json.loads(_files(SHIPPED)[MANIFEST_FILE])
    places = list(_places(shipped))

    def target(data: bytes) -> None:
        if data[:1] == b"\0":
            data = _replaced(shipped, places[int.from_bytes(data[1:2]) % len(places)], data[2:])
        with contextlib.suppress(BundleError):
            manifest = Manifest.load(Bundle(Path("x"), {MANIFEST_FILE: data}))
            assert len(manifest.contract.digest) == 64
            assert manifest.contract.payload_bytes > 0

    yield target


def _places(value: object, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Give the way to each value of a JSON document."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from _places(inner, *path, key)


def _replaced(document: object, place: tuple[str | int, ...], new: bytes) -> bytes:
    """Write the document with ``new``, JSON or else a text, at one place."""
    try:
        value = json.loads(new)
    except (ValueError, RecursionError):
        value = new.decode("latin-1")
    changed = json.loads(json.dumps(document))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(changed).encode()


@contextlib.contextmanager
def _bundle() -> Iterator[Target]:
    """Read an archive with anything in it or, after a zero byte, one that is whole with a strange graph in it."""
    with tempfile.NamedTemporaryFile(suffix=".dcp", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:

        def target(data: bytes) -> None:
            if data[:1] == b"\0":
                data = pack({DEVICE_GRAPH_FILE: data[1:], MANIFEST_FILE: _files(SHIPPED)[MANIFEST_FILE]})
            file.seek(0)
            file.truncate()
            file.write(data)
            file.flush()
            with contextlib.suppress(BundleError):
                bundle = Bundle.open(file.name)
                contract = Manifest.load(bundle).contract
                PrivacyReport.load(bundle, contract)
                check_graph(bundle.read(DEVICE_GRAPH_FILE), bundle.path)

        yield target


@contextlib.contextmanager
def _image() -> Iterator[Target]:
    def target(data: bytes) -> None:
        with contextlib.suppress(FrameError):
            image = load_image(data)
            assert (image.dtype, image.ndim, image.shape[-1]) == (np.uint8, 3, 3)
            size = _CONTRACT.preprocessing.size_px
            assert preprocess(image, _CONTRACT.preprocessing).shape == (size, size, 3)

    yield target


@contextlib.contextmanager
def _grpc() -> Iterator[Target]:
    """Take the first byte to choose which of four answers is a lie, and the others for the bytes of that message."""
    contract = _tiny()
    with liars.grpc_liar(contract) as (address, script):
        transport = GrpcTransport(address)
        transport.connect(contract, _TIMEOUT_S)

        def target(data: bytes) -> None:
            script.lie_at, script.lie = _choice(data)
            if script.lie_at == liars.INFER:
                _exchange(transport, contract, connect=False)
            else:
                with contextlib.closing(GrpcTransport(address)) as fresh:
                    _exchange(fresh, contract, connect=True)

        yield target
        transport.close()


@contextlib.contextmanager
def _http() -> Iterator[Target]:
    """Take the first byte to choose which of four answers is a lie, and the others for all that comes over the wire."""
    contract = _tiny()
    with liars.http_liar(contract) as (address, script):

        def target(data: bytes) -> None:
            script.lie_at, script.lie = _choice(data)
            with contextlib.closing(HttpTransport(address)) as transport:
                _exchange(transport, contract, connect=True)

        yield target


TARGETS: dict[str, Callable[[], AbstractContextManager[Target]]] = {
    "manifest": _manifest,
    "bundle": _bundle,
    "image": _image,
    "grpc": _grpc,
    "http": _http,
}


def seeds(name: str) -> list[bytes]:
    """Return inputs of a target that are well-formed, to be changed by a fuzzer."""
    files = _files(SHIPPED)
    if name == "manifest":
        values = (b"-1", b"1e999", b"NaN", b"9" * 30, b'"../x"', b"null", b"[]", b"{}", b"true", b"[1, 2]", b"0.5", b"")
        places = range(len(list(_places(json.loads(files[MANIFEST_FILE])))))
        patches = [bytes([0, place]) + value for place in places for value in values]
        return [files[MANIFEST_FILE], _files(tiny.PAPER)[MANIFEST_FILE], *patches]
    if name == "bundle":
        graph = tiny.device_graph(np.random.default_rng(0)).SerializeToString()
        small = {MANIFEST_FILE: files[MANIFEST_FILE], DEVICE_GRAPH_FILE: graph}
        return [pack(small), b"\0" + graph]
    if name == "image":
        picture = cv2.resize(cv2.imread(str(_PICTURE)), (24, 16))
        kinds = (".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".jp2", ".gif", ".avif", ".hdr", ".pfm")
        return [data for kind in kinds if (data := _encoded(kind, picture))]
    honest = {"grpc": liars.grpc_replies, "http": liars.http_replies}[name](_tiny())
    return [bytes([number]) + reply for number, reply in enumerate(honest)]


def _encoded(kind: str, picture: np.ndarray) -> bytes:
    """Encode in a format; nothing where this OpenCV does not write it."""
    try:
        scaled = picture.astype(np.float32) / 255 if kind in (".hdr", ".pfm") else picture
        written, data = cv2.imencode(kind, scaled)
    except cv2.error:
        return b""
    return data.tobytes() if written else b""


def _files(bundle: Path) -> dict[str, bytes]:
    return dict(Bundle.open(bundle).files)


def _tiny() -> Contract:
    return tiny.contract("0" * 64, "1" * 64)


def _choice(data: bytes) -> tuple[int, bytes]:
    return (data[0] % 4 if data else 0), data[1:]


def _exchange(transport: Transport, contract: Contract, *, connect: bool) -> None:
    """Ask, and make sure that what comes back is an answer or an error that a caller may get, in time."""
    payload = tuple(tiny.payload(1).values())
    start = time.monotonic()
    try:
        if connect:
            transport.connect(contract, _TIMEOUT_S)
        values = transport.infer(payload, _TIMEOUT_S)
        with contextlib.suppress(ServerRejected):
            probabilities = decode_answer(contract, values, 1)
            assert probabilities.shape == (1, *contract.answer.shape)
            assert abs(float(probabilities.sum()) - 1) < 0.01
    except (ServerError, ContractMismatch) as error:
        assert str(error)
    assert time.monotonic() - start < 2 * _TIMEOUT_S + _SLACK_S, "in time"
