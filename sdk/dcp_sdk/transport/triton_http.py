"""Triton over HTTP: KServe's v2 protocol with Triton's binary tensor extension.

NVIDIA's HTTP client is not used: it cannot cross threads, its timeouts start anew with each byte, and it
brings gevent along.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Unpack

import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from ..contract import Contract
from ..deadline import Deadline
from ..obfuscate import Payload
from .base import TRACE_HEADERS
from .http_pool import AnswerTooLong, Connection, ConnectionPool, Response
from .pairing import ServedConfig, ServedModel, check_digest, check_pairing
from .tcp import DeadlineSocket, TLSDeadlineSocket
from .tcp import secure as secure_socket
from .tls import PLAINTEXT, client_context, explain, speaks_http, speaks_tls
from .triton import ConnectionOptions, TritonTransport

__all__ = ["HttpTransport"]

_DIAGNOSIS_S = 1.0
_MAY_PASS = {429, 502, 503, 504}
"""Too many requests, and a server that is away: a gateway before it says so, too."""
_HEADER_LENGTH = "Inference-Header-Content-Length"


class HttpTransport(TritonTransport):
    """Kept-alive HTTP connections to a Triton server, shared by all threads.

    Args:
        target: ``host:port``.
        options: As :class:`TritonTransport` takes them.

    Raises:
        ConfigError: As :class:`TritonTransport`.
    """

    scheme = "http"
    key_prefix = ""

    def __init__(self, target: str, **options: Unpack[ConnectionOptions]) -> None:
        super().__init__(target, **options)
        self._pool = ConnectionPool(target, secure=self._shake_hands if self._secure else None)

    def connect(self, contract: Contract, timeout_s: float) -> None:
        deadline = Deadline(timeout_s)
        with self._lend(deadline) as connection:
            ready = self._ask(connection, "GET", f"{_path(contract)}/ready")
            if ready.status not in {200, 400, 404, 503}:
                self._raise_for(ready, contract)
            if ready.status != 200:
                self._raise_for_another(ready)
                raise self._not_ready(contract)
            metadata = self._get_json(connection, _path(contract), contract)
            config = self._get_json(connection, f"{_path(contract)}/config", contract)
            check_pairing(contract, ServedModel.parse(metadata, config), self.address)
            connection.checked = True
        self._connected_contract = contract

    def reach(self, timeout_s: float) -> None:
        with self._lend(Deadline(timeout_s)) as connection:
            self._check(connection, self._contract)

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        contract, deadline = self._contract, Deadline(timeout_s)
        head, body = _encode(contract, payload)
        with self._lend(deadline) as connection:
            self._check(connection, contract)
            response = self._ask(
                connection,
                "POST",
                f"{_path(contract)}/infer",
                headers={
                    _HEADER_LENGTH: str(len(head)),
                    "Content-Type": "application/octet-stream",
                    **TRACE_HEADERS.get(),
                },
                body=head + body,
            )
            # A refusal may mean that the head was exchanged: ask before the next payload.
            connection.checked = response.status == 200
        if response.status != 200:
            self._raise_for(response, contract)
        return self._answer(contract, response)

    def close(self) -> None:
        self._pool.close()

    def _check(self, connection: Connection, contract: Contract) -> None:
        """Ask whom a new connection leads to: between two of them the server may have got another head."""
        if not connection.checked:
            config = self._get_json(connection, f"{_path(contract)}/config", contract)
            check_digest(contract, ServedConfig.read(config), self.address)
            connection.checked = True

    def _get_json(self, connection: Connection, path: str, contract: Contract) -> object:
        response = self._ask(connection, "GET", path)
        if response.status != 200:
            self._raise_for(response, contract)
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError) as error:
            raise self._nonsense("something that is not JSON") from error

    def _ask(
        self,
        connection: Connection,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Response:
        return connection.exchange(method, path, headers={**self._request_headers(), **(headers or {})}, body=body)

    def _shake_hands(self, plain: DeadlineSocket) -> TLSDeadlineSocket:
        with plain:  # also where a file cannot be read
            context = self._read_certificates(lambda: client_context(self._security, protocol="http/1.1"))
            return secure_socket(plain, context, self._host)

    @contextmanager
    def _lend(self, deadline: Deadline) -> Iterator[Connection]:
        """Lend a connection, and say what broke it. TLS is to blame only until it was checked: then it worked."""
        connection: Connection | None = None
        try:
            with self._pool.lend(deadline) as connection:
                yield connection
        except TimeoutError as error:
            raise self._too_late(deadline.timeout_s) from error
        except OSError as error:
            checked = connection is not None and connection.checked
            reason = None if checked else self._why_not_secure(error, deadline)
            if reason is not None:
                raise self._insecure(reason) from error
            unwelcome = self._secure and connection is not None and not checked
            raise self._unreachable(str(error) or type(error).__name__, unwelcome=unwelcome) from error
        except AnswerTooLong as error:
            raise self._nonsense(str(error)) from None
        except http.client.HTTPException as error:
            reason = self._why_not_secure(error, deadline)
            if reason is not None:
                raise self._insecure(reason) from None
            # Its message is what the server said, a key of ours perhaps.
            raise self._unreachable(f"{type(error).__name__}, which is not an HTTP answer") from None

    def _why_not_secure(self, error: Exception, deadline: Deadline) -> str | None:
        if isinstance(error, ssl.SSLError):
            return explain(error) or self._why_hung_up(deadline)
        return self._why_no_answer(error, deadline)

    def _why_no_answer(self, error: Exception, deadline: Deadline) -> str | None:
        """Find out whether a server that did not answer in plaintext wants TLS. It talks, but not HTTP."""
        if self._secure or self._connected_contract is not None or isinstance(error, ConnectionRefusedError):
            return None
        if speaks_tls(self._host, self._port, Deadline(min(deadline.left_s(), _DIAGNOSIS_S))):
            return f"it speaks TLS. Use {self.scheme}s://{self._target}"
        return None

    def _why_hung_up(self, deadline: Deadline) -> str | None:
        """Find out whether a server that ended the handshake without a word speaks plaintext."""
        if self._connected_contract is not None:
            return None
        time_left = Deadline(min(deadline.left_s(), _DIAGNOSIS_S))
        return PLAINTEXT if speaks_http(self._host, self._port, time_left) else None

    def _raise_for(self, response: Response, contract: Contract) -> NoReturn:
        why = f"HTTP {response.status}, {_error_text(response) or 'no reason given'}"
        if response.status in {401, 403}:
            raise self._needs_key(why)
        if response.status == 404:
            self._raise_for_another(response)
            raise self._not_ready(contract)
        if "exceeds maximum queue size" in why.lower():
            raise self._full(why)
        if response.status in _MAY_PASS:
            raise self._unreachable(why)
        raise self._refused(why)

    def _raise_for_another(self, response: Response) -> None:
        """Triton says in JSON why it has not got a model; what says so otherwise is another server."""
        if response.status in {400, 404} and _error_text(response) is None:
            raise self._nonsense(f"HTTP {response.status} in words that are not Triton's")

    def _answer(self, contract: Contract, response: Response) -> npt.NDArray[Any]:
        spec = contract.answer
        head_length = response.headers.get(_HEADER_LENGTH.lower(), "")
        try:
            head = _AnswerHead.model_validate_json(response.body[: int(head_length)])
        except (ValueError, ValidationError):  # which quote the body
            raise self._nonsense("a body that is not a tensor") from None
        output, data = head.outputs[0], response.body[int(head_length) :]
        if (output.name, output.datatype) != (spec.name, spec.triton_type):
            raise self._nonsense(f"no {spec.dtype} tensor {spec.name!r}")
        return self._tensor(spec.dtype, output.shape, data)


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
                "datatype": spec.triton_type,
                "parameters": {"binary_data_size": len(chunk)},
            }
        )
    outputs = [{"name": contract.answer.name, "parameters": {"binary_data": True}}]
    return json.dumps({"inputs": inputs, "outputs": outputs}).encode(), b"".join(chunks)


def _error_text(response: Response) -> str | None:
    try:
        return str(json.loads(response.body)["error"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
