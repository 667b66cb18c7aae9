"""Read back what left the device: each request body must be a question about the model, or a payload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from dcp_sdk.contract import Contract
from dcp_sdk.guard import check_payload
from dcp_sdk.obfuscate import Payload
from tests.e2e.secrets import Secrets
from tests.e2e.tap import Tap
from tests.tiny import Tiny

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA_FRAME = 0
_TLS_GREETING = b"\x16\x03"


def only_payloads_left(wire: Tap, tiny: Tiny, secrets: Secrets) -> int:
    """Decode all that left the device; return how many payloads that was."""
    assert secrets.found_in(wire.sent) == []
    return sum(len(payloads_in(bytes(stream), tiny.manifest.contract)) for stream in wire.streams)


def payloads_in(stream: bytes, contract: Contract) -> list[Payload]:
    """Return all payloads of one connection; an AssertionError says that something else was sent.

    A body that was cut off may be a piece of a payload only.
    """
    if stream[:2] == _TLS_GREETING or _PREFACE.startswith(stream):  # the beginning of TLS or HTTP/2, or nothing
        return []
    if stream.startswith(_PREFACE):
        return [payload for message in _messages(stream) if (payload := _of_grpc(message, contract)) is not None]
    return list(_of_http(stream, contract))


def _messages(stream: bytes) -> Iterator[bytes]:
    """Put the DATA frames of each HTTP/2 stream together, and cut them into gRPC messages."""
    at, bodies = len(_PREFACE), {}
    while at + 9 <= len(stream):
        length, kind = int.from_bytes(stream[at : at + 3]), stream[at + 3]
        number = int.from_bytes(stream[at + 5 : at + 9]) & 0x7FFFFFFF
        data = stream[at + 9 : at + 9 + length]
        if kind == _DATA_FRAME:
            assert not stream[at + 4] & 0x8, "padding could hide something"
            bodies.setdefault(number, bytearray()).extend(data)
        at += 9 + length
    for body in bodies.values():
        while body:
            size = int.from_bytes(body[1:5])
            assert body[0] == 0, "no compression: its length would tell something"
            if len(body) < 5 + size:
                break  # cut off
            yield bytes(body[5 : 5 + size])
            del body[: 5 + size]


def _of_grpc(message: bytes, contract: Contract) -> Payload | None:
    head = contract.head
    question = service_pb2.ModelConfigRequest(name=head.model, version=str(head.version))
    if message == question.SerializeToString():  # the same for readiness and metadata
        return None
    request = service_pb2.ModelInferRequest.FromString(message)
    payload = _decode(
        [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in request.inputs],
        list(request.raw_input_contents),
        contract,
    )
    expected = service_pb2.ModelInferRequest(model_name=head.model, model_version=str(head.version))
    for spec, value in zip(contract.payload, payload, strict=True):
        expected.inputs.add(name=spec.name, datatype=spec.triton_type, shape=value.shape)
        expected.raw_input_contents.append(value.tobytes())
    expected.outputs.add(name=contract.answer.name)
    assert request == expected, "no other field"
    return payload


def _of_http(stream: bytes, contract: Contract) -> Iterator[Payload]:
    while stream:
        head, end, rest = stream.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        if not end:
            return  # cut off
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert set(headers) <= {
            "host",
            "accept-encoding",
            "content-length",
            "content-type",
            "inference-header-content-length",
        }
        length = int(headers.get("content-length", 0))
        assert first.startswith("POST " if length else "GET "), first
        body, stream = rest[:length], rest[length:]
        if len(body) < length:
            return  # cut off
        if length:
            yield _of_http_body(body, int(headers["inference-header-content-length"]), contract)


def _of_http_body(body: bytes, head_length: int, contract: Contract) -> Payload:
    head: dict[str, Any] = json.loads(body[:head_length])
    chunks, at = [], head_length
    for tensor in head["inputs"]:
        assert set(tensor) == {"name", "shape", "datatype", "parameters"}
        size = tensor["parameters"].pop("binary_data_size")
        assert not tensor["parameters"]
        chunks.append(body[at : at + size])
        at += size
    assert at == len(body), "nothing follows the tensors"
    assert set(head) == {"inputs", "outputs"}
    assert head["outputs"] == [{"name": contract.answer.name, "parameters": {"binary_data": True}}]
    return _decode([(t["name"], t["datatype"], tuple(t["shape"])) for t in head["inputs"]], chunks, contract)


def _decode(stated: list[tuple[str, str, tuple[int, ...]]], chunks: list[bytes], contract: Contract) -> Payload:
    batch = stated[0][2][0]
    assert stated == [(spec.name, spec.triton_type, (batch, *spec.shape)) for spec in contract.payload]
    arrays = [
        np.frombuffer(chunk, spec.dtype).reshape(batch, *spec.shape)
        for spec, chunk in zip(contract.payload, chunks, strict=True)
    ]
    return check_payload(contract, arrays)
