"""Servers that speak Triton's protocols, describe the head truthfully, and answer requests with nonsense."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from dcp_sdk.contract import Contract
from dcp_sdk.serving import triton_config


@dataclass
class Answer:
    """One output tensor as a server states it, true or not."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass
class Refusal:
    """What a server says in place of an answer."""

    status: str
    """Of gRPC."""
    code: int
    """Of HTTP."""
    words: str
    times: int = 1 << 30
    """After so many it gives the honest answer."""
    unless_key: str | None = None
    """Who shows this key gets it at once."""
    asked: int = 0
    """How often it was asked."""

    def is_over(self, key: str | None) -> bool:
        """Count one request; tell whether it may be answered."""
        self.asked += 1
        return self.asked > self.times or (key is not None and key == self.unless_key)


def true_answer(contract: Contract) -> Answer:
    """Give what an honest head could say to one picture."""
    (classes,) = contract.answer.shape
    return Answer(contract.answer.name, "FP32", (1, classes), np.full(classes, 1 / classes, "<f4").tobytes())


def describe(contract: Contract) -> tuple[dict[str, Any], model_config_pb2.ModelConfig]:
    """Return metadata and configuration as Triton gives them."""
    config = text_format.Parse(triton_config.render([contract], "onnxruntime"), model_config_pb2.ModelConfig())
    metadata = {
        "name": contract.head.model,
        "versions": [str(contract.head.version)],
        "inputs": [
            {"name": spec.name, "datatype": spec.triton_type, "shape": [-1, *spec.shape]} for spec in contract.payload
        ],
        "outputs": [{"name": contract.answer.name, "datatype": "FP32", "shape": [-1, *contract.answer.shape]}],
    }
    return metadata, config


@contextlib.contextmanager
def grpc_server(
    contract: Contract,
    answer: Answer | Refusal,
    *,
    stream_status: str | None = None,
    before: Callable[[Any], None] = lambda context: None,
) -> Iterator[str]:
    """Serve over gRPC; gives the address.

    During the first request the open stream ends with ``stream_status``. ``before`` an answer a call's context may be
    looked at, for as long as it likes.
    """
    metadata, config = describe(contract)
    asked, stream_ended = threading.Event(), threading.Event()

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelReady(self, request: Any, context: Any) -> Any:
            return service_pb2.ModelReadyResponse(ready=True)

        def ModelMetadata(self, request: Any, context: Any) -> Any:
            return json_format.ParseDict(metadata, service_pb2.ModelMetadataResponse())

        def ModelConfig(self, request: Any, context: Any) -> Any:
            return service_pb2.ModelConfigResponse(config=config)

        def ModelInfer(self, request: Any, context: Any) -> Any:
            if stream_status is not None and not stream_ended.is_set():
                asked.set()
                stream_ended.wait(10)
                time.sleep(0.1)  # until the device knows
            before(context)
            key = dict(context.invocation_metadata()).get("triton-grpc-protocol-dcp-key")
            if isinstance(answer, Refusal) and not answer.is_over(key):
                context.abort(grpc.StatusCode[answer.status], answer.words)
            said = true_answer(contract) if isinstance(answer, Refusal) else answer
            output = {"name": said.name, "datatype": said.datatype, "shape": said.shape}
            return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[said.data])

        def ModelStreamInfer(self, requests: Any, context: Any) -> Any:
            yield from ()
            if stream_status is not None and not stream_ended.is_set():
                asked.wait(10)
                stream_ended.set()
                if stream_status != "OK":
                    context.abort(grpc.StatusCode[stream_status], "idle for too long")
                return
            for _ in requests:  # the client sends nothing, and keeps it open
                pass

    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None).wait()


@contextlib.contextmanager
def http_server(contract: Contract, answer: Answer | bytes | Refusal) -> Iterator[str]:
    """Serve over HTTP; gives the address. Bytes are sent as they are, in place of the whole body."""
    metadata, config = describe(contract)
    model = f"/v2/models/{contract.head.model}/versions/{contract.head.version}"
    pages = {
        f"{model}/ready": b"",
        model: json.dumps(metadata).encode(),
        f"{model}/config": json_format.MessageToJson(config, preserving_proto_field_name=True).encode(),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(pages[self.path])

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if isinstance(answer, bytes):
                self._send(answer)
                return
            if isinstance(answer, Refusal) and not answer.is_over(self.headers.get("dcp-key")):
                self._send(json.dumps({"error": answer.words}).encode(), status=answer.code)
                return
            said = true_answer(contract) if isinstance(answer, Refusal) else answer
            output = {
                "name": said.name,
                "datatype": said.datatype,
                "shape": said.shape,
                "parameters": {"binary_data_size": len(said.data)},
            }
            head = json.dumps({"outputs": [output]}).encode()
            self._send(head + said.data, {"Inference-Header-Content-Length": str(len(head))})

        def _send(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


SERVERS: dict[str, Callable[[Contract, Any], contextlib.AbstractContextManager[str]]] = {
    "grpc": grpc_server,
    "http": http_server,
}
"""By scheme."""
