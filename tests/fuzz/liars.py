"""Servers that answer truthfully but for one reply, whose bytes are somebody else's."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from dcp_sdk.contract import Contract
from tests.sdk.transport.hostile import describe, true_answer

__all__ = ["INFER", "Script", "grpc_liar", "grpc_replies", "http_liar", "http_replies"]

METHODS = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer")
INFER = METHODS.index("ModelInfer")


@dataclass
class Script:
    """Which reply is a lie."""

    lie_at: int = -1
    lie: bytes = b""


def grpc_replies(contract: Contract) -> list[bytes]:
    """Return the honest messages, in the order of ``METHODS``."""
    metadata, config = describe(contract)
    said = true_answer(contract)
    output = {"name": said.name, "datatype": said.datatype, "shape": said.shape}
    messages = (
        service_pb2.ModelReadyResponse(ready=True),
        json_format.ParseDict(metadata, service_pb2.ModelMetadataResponse()),
        service_pb2.ModelConfigResponse(config=config),
        service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[said.data]),
    )
    return [message.SerializeToString() for message in messages]


@contextlib.contextmanager
def grpc_liar(contract: Contract) -> Iterator[tuple[str, Script]]:
    """Serve messages as bytes, well-formed or not; gives ``host:port`` and the script."""
    script, honest = Script(), grpc_replies(contract)

    def reply(number: int) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: script.lie if number == script.lie_at else honest[number]
        )

    def stay(requests: Any, context: Any) -> Any:
        yield from ()
        for _ in requests:  # the client sends nothing, and keeps it open
            pass

    handlers = {method: reply(number) for number, method in enumerate(METHODS)}
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(stay)
    server = grpc.server(ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", script
    server.stop(None).wait()


def http_replies(contract: Contract) -> list[bytes]:
    """Return the honest replies, head and body, in the order of ``METHODS``."""
    metadata, config = describe(contract)
    said = true_answer(contract)
    output = {"name": said.name, "datatype": said.datatype, "shape": said.shape}
    head = json.dumps({"outputs": [output | {"parameters": {"binary_data_size": len(said.data)}}]}).encode()
    as_json = json_format.MessageToJson(config, preserving_proto_field_name=True)
    return [
        _http(b""),
        _http(json.dumps(metadata).encode()),
        _http(as_json.encode()),
        _http(head + said.data, f"Inference-Header-Content-Length: {len(head)}\r\n"),
    ]


@contextlib.contextmanager
def http_liar(contract: Contract) -> Iterator[tuple[str, Script]]:
    """Serve raw bytes over TCP; gives ``host:port`` and the script. After a lie it hangs up."""
    script, honest = Script(), http_replies(contract)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    converse(connection)

    def converse(connection: socket.socket) -> None:
        for number, reply in enumerate(honest):
            if not _request(connection):
                return
            connection.sendall(script.lie if number == script.lie_at else reply)
            if number == script.lie_at:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", script
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def _request(connection: socket.socket) -> bool:
    """Read one request to its end; False if none came, or one that is not HTTP."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 16)
        if not more or not (data + more).startswith((b"GET ", b"POST ")):
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    missing = int(lengths[0]) - len(body) if lengths else 0
    while missing > 0:
        missing -= len(connection.recv(1 << 16))
    return True


def _http(body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
