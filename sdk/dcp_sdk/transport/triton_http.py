"""Triton over HTTP: KServe's v2 protocol with Triton's binary tensor extension.

NVIDIA's HTTP client is not used: it cannot cross threads, its timeouts start anew with each byte, and it
brings gevent along.
"""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from ..contract import Contract
from ..obfuscate import Payload
from .base import Deadline
from .http_pool import ConnectionPool, Response
from .pairing import TRITON_TYPES, ServedModel
from .triton import TritonTransport

__all__ = ["HttpTransport"]

_HEADER_LENGTH = "Inference-Header-Content-Length"


class HttpTransport(TritonTransport):
    """Kept-alive HTTP connections to a Triton server, shared by all threads.

    Args:
        target: ``host:port``.
        headers: Sent with each request.
    """

    scheme = "http"

    def __init__(self, target: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(target, headers=headers)
        self._pool = ConnectionPool(target)

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        contract = self._contract
        head, body = _encode(contract, payload)
        response = self._request(
            "POST",
            f"{_path(contract)}/infer",
            Deadline(timeout_s),
            headers={_HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"},
            body=head + body,
        )
        if response.status != 200:
            self._raise_for(response, contract)
        return self._answer(contract, response)

    def close(self) -> None:
        self._pool.close()

    def _is_ready(self, contract: Contract, deadline: Deadline) -> bool:
        response = self._request("GET", f"{_path(contract)}/ready", deadline)
        if response.status not in {200, 400, 404, 503}:
            self._raise_for(response, contract)
        return response.status == 200

    def _describe(self, contract: Contract, deadline: Deadline) -> ServedModel:
        return ServedModel.parse(
            self._get_json(_path(contract), contract, deadline),
            self._get_json(f"{_path(contract)}/config", contract, deadline),
        )

    def _get_json(self, path: str, contract: Contract, deadline: Deadline) -> object:
        response = self._request("GET", path, deadline)
        if response.status != 200:
            self._raise_for(response, contract)
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError) as error:
            raise self._nonsense("something that is not JSON") from error

    def _request(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Response:
        with self._mapped_errors(deadline):
            return self._pool.request(
                method, path, deadline=deadline, headers={**self._headers, **(headers or {})}, body=body
            )

    @contextmanager
    def _mapped_errors(self, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._too_late(deadline.timeout_s) from error
        except OSError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        except http.client.HTTPException as error:
            raise self._unreachable(f"{type(error).__name__}, which is not an HTTP answer") from error

    def _raise_for(self, response: Response, contract: Contract) -> NoReturn:
        why = f"HTTP {response.status}, {_error_text(response)}"
        if response.status in {401, 403}:
            raise self._needs_key(why)
        if response.status == 404:
            raise self._not_ready(contract)
        if response.status == 503:
            raise self._unreachable(why)
        raise self._refused(why)

    def _answer(self, contract: Contract, response: Response) -> npt.NDArray[Any]:
        spec = contract.answer
        head_length = response.headers.get(_HEADER_LENGTH.lower(), "")
        try:
            head = _AnswerHead.model_validate_json(response.body[: int(head_length)])
        except (ValueError, ValidationError) as error:
            raise self._nonsense("a body that is not a tensor") from error
        output, data = head.outputs[0], response.body[int(head_length) :]
        if (output.name, output.datatype) != (spec.name, TRITON_TYPES[spec.dtype]):
            raise self._nonsense(f"no {spec.dtype} tensor {spec.name!r}")
        dtype = np.dtype(spec.dtype).newbyteorder("<")
        if min(output.shape, default=0) < 0 or math.prod(output.shape) * dtype.itemsize != len(data):
            raise self._nonsense("a tensor whose bytes do not fit its shape")
        return np.frombuffer(data, dtype).astype(spec.dtype).reshape(output.shape)


class _Tensor(BaseModel):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _AnswerHead(BaseModel):
    outputs: tuple[_Tensor]


def _path(contract: Contract) -> str:
    return f"/v2/models/{contract.head.model}/versions/{contract.head.version}"


def _encode(contract: Contract, payload: Payload) -> tuple[bytes, bytes]:
    """Return the JSON head of a request, and the tensors' bytes that follow it (little-endian)."""
    inputs, chunks = [], []
    for spec, value in zip(contract.payload, payload, strict=True):
        chunk = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        chunks.append(chunk)
        inputs.append(
            {
                "name": spec.name,
                "shape": value.shape,
                "datatype": TRITON_TYPES[spec.dtype],
                "parameters": {"binary_data_size": len(chunk)},
            }
        )
    outputs = [{"name": contract.answer.name, "parameters": {"binary_data": True}}]
    return json.dumps({"inputs": inputs, "outputs": outputs}).encode(), b"".join(chunks)


def _error_text(response: Response) -> str:
    try:
        return str(json.loads(response.body)["error"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return "no reason given"
