"""The task head in this process, from the model repository that Triton serves. For tests and offline use."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy.typing as npt
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from ..contract import Contract
from ..deadline import Deadline
from ..errors import (
    BundleError,
    ConfigError,
    ContractMismatch,
    DeadlineExceeded,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
)
from ..obfuscate import Payload
from ..runtime import Graph
from .base import Transport
from .pairing import ServedModel, check_pairing

__all__ = ["MemoryTransport"]


class MemoryTransport(Transport):
    """Runs the head of a Triton model repository with ONNX Runtime, on the CPU. No byte leaves the process.

    There is nobody to wait for, so :meth:`connect` knows no time limit.

    Args:
        repository: Path of the model repository.
    """

    def __init__(self, repository: str | PathLike[str]) -> None:
        self._repository = Path(repository)
        self._connected: tuple[Contract, Graph] | None = None

    @property
    def address(self) -> str:
        return f"memory://{self._repository}"

    def connect(self, contract: Contract, timeout_s: float) -> None:
        model = self._repository / contract.head.model
        check_pairing(contract, _read_config(model / "config.pbtxt"), self.address)
        path = model / str(contract.head.version) / "model.onnx"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ServerUnavailable(
                f"expected the task head at {path}, got {type(error).__name__}. Export the bundle again."
            ) from error
        sha256, inputs, outputs = contract.head.sha256, contract.payload, (contract.answer,)
        try:
            graph = Graph(data, sha256, where=path, inputs=inputs, outputs=outputs, device="cpu")
        except BundleError as error:
            raise ContractMismatch(f"the head at {self.address} is not one to be paired with. {error}") from error
        self._connected = contract, graph

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        if self._connected is None:
            raise ConfigError(f"the transport to {self.address} is not connected. Call connect first.")
        contract, graph = self._connected
        for spec, value in zip(contract.payload, payload, strict=True):
            if violation := spec.violation(value):
                raise ServerRejected(f"{self.address} refused the request: {violation}.")
        names = (spec.name for spec in contract.payload)
        try:
            (answer,) = graph.run(dict(zip(names, payload, strict=True)), Deadline(timeout_s))
        except DeadlineExceeded as error:
            raise ServerTimeout(
                f"expected an answer from {self.address} within {timeout_s:.3g} s, got none. Allow more with Timeouts."
            ) from error
        return answer

    def close(self) -> None:
        self._connected = None


def _read_config(path: Path) -> ServedModel:
    """Read ``config.pbtxt`` the way Triton does, and describe the model the way Triton would."""
    try:
        text = path.read_text(encoding="utf-8")
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ServerUnavailable(
            f"expected a Triton model configuration at {path}, got {type(error).__name__}. "
            "Give the model repository that was exported with the bundle."
        ) from error
    as_json = json_format.MessageToDict(config, preserving_proto_field_name=True)
    tensors = {
        plural: [
            {"name": t.name, "datatype": _datatype(t.data_type), "shape": (-1, *t.dims)}
            for t in getattr(config, singular)
        ]
        for singular, plural in (("input", "inputs"), ("output", "outputs"))
    }
    return ServedModel.parse(tensors, as_json)


def _datatype(value: int) -> str:
    name: str = model_config_pb2.DataType.Name(value)
    return name.removeprefix("TYPE_")
