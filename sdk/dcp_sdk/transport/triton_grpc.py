"""Triton over gRPC, with NVIDIA's client. Every call has a deadline, no call is retried."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from ..contract import Contract
from ..obfuscate import Payload
from .base import Deadline
from .pairing import TRITON_TYPES, ServedModel
from .triton import TritonTransport

__all__ = ["GrpcTransport"]

_LARGEST_ANSWER_BYTES = 1 << 20
_FRAMING_BYTES = 1 << 16


class GrpcTransport(TritonTransport):
    """One gRPC channel to a Triton server, shared by all threads.

    Args:
        target: ``host:port``.
        headers: Sent as gRPC metadata with each request.
    """

    scheme = "grpc"

    def __init__(self, target: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(target, headers=headers)
        self._lock = threading.Lock()
        self._client: InferenceServerClient | None = None
        self._closed = False

    def connect(self, contract: Contract, timeout_s: float) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = InferenceServerClient(self._target, channel_args=_channel_args(contract))
        super().connect(contract, timeout_s)

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        contract, deadline = self._contract, Deadline(timeout_s)
        with self._mapped_errors(contract, deadline):
            result = self._open_client.infer(
                contract.head.model,
                _inputs(contract, payload),
                model_version=str(contract.head.version),
                outputs=[InferRequestedOutput(contract.answer.name)],
                headers=self._headers,
                client_timeout=deadline.remaining_s(),
            )
        return self._answer(contract, result)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._client is not None:
                self._client.close()

    @property
    def _open_client(self) -> InferenceServerClient:
        if self._client is None or self._closed:
            raise self._unreachable("the transport is closed")
        return self._client

    def _is_ready(self, contract: Contract, deadline: Deadline) -> bool:
        with self._mapped_errors(contract, deadline):
            return bool(self._open_client.is_model_ready(**self._about(contract, deadline)))

    def _describe(self, contract: Contract, deadline: Deadline) -> ServedModel:
        with self._mapped_errors(contract, deadline):
            metadata = self._open_client.get_model_metadata(**self._about(contract, deadline), as_json=True)
            config = self._open_client.get_model_config(**self._about(contract, deadline), as_json=True)
        return ServedModel.parse(metadata, config.get("config"))

    def _about(self, contract: Contract, deadline: Deadline) -> dict[str, Any]:
        return {
            "model_name": contract.head.model,
            "model_version": str(contract.head.version),
            "headers": self._headers,
            "client_timeout": deadline.remaining_s(),
        }

    def _answer(self, contract: Contract, result: InferResult) -> npt.NDArray[Any]:
        output = result.get_output(contract.answer.name)
        if output is None or output.datatype != TRITON_TYPES[contract.answer.dtype]:
            raise self._nonsense(f"no {contract.answer.dtype} tensor {contract.answer.name!r}")
        try:
            answer: npt.NDArray[Any] = result.as_numpy(contract.answer.name)
        except ValueError as error:
            raise self._nonsense("a tensor whose bytes do not fit its shape") from error
        return answer

    @contextmanager
    def _mapped_errors(self, contract: Contract, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._too_late(deadline.timeout_s) from error
        except InferenceServerException as error:
            raise self._map(error, contract, deadline) from error
        except ValueError as error:  # grpc's word for a channel that was closed by another thread
            raise self._unreachable("the transport is closed") from error

    def _map(self, error: InferenceServerException, contract: Contract, deadline: Deadline) -> Exception:
        status = str(error.status()).removeprefix("StatusCode.")
        message = str(error.message())
        if status == "DEADLINE_EXCEEDED":
            return self._too_late(deadline.timeout_s)
        if status == "NOT_FOUND":
            return self._not_ready(contract)
        # Triton says UNAVAILABLE for a missing key, too.
        if status in {"UNAUTHENTICATED", "PERMISSION_DENIED"} or "restricted" in message:
            return self._needs_key(message)
        if status in {"UNAVAILABLE", "CANCELLED"}:
            return self._unreachable(message)
        return self._refused(f"{status}, {message}")


def _channel_args(contract: Contract) -> list[tuple[str, int]]:
    return [
        # A message that is larger than the contract allows cannot even be sent.
        (
            "grpc.max_send_message_length",
            contract.head.max_batch_size * contract.payload_bytes + _FRAMING_BYTES,
        ),
        ("grpc.max_receive_message_length", _LARGEST_ANSWER_BYTES),
        ("grpc.enable_retries", 0),
        # The default waits seconds before it tries a server that was restarted.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Otherwise all clients of the process share one connection, its failures and its back-off.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _inputs(contract: Contract, payload: Payload) -> list[InferInput]:
    inputs = []
    for spec, value in zip(contract.payload, payload, strict=True):
        tensor = InferInput(spec.name, value.shape, TRITON_TYPES[spec.dtype])
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    return inputs
