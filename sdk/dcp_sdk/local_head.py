"""The task head on the device, for when no server answers and the caller wants an answer all the same."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .bundles.bundle import HEAD_FILE, Bundle
from .contract import Contract
from .deadline import Deadline
from .errors import ConfigError
from .obfuscate import Payload
from .runtime import Graph

__all__ = ["LocalHead"]


class LocalHead:
    """The head that the contract names, out of the bundle. Thread-safe.

    Args:
        bundle: The files of the bundle.
        contract: Its contract; it names the head's hash and tensors.
        threads: CPU threads of one run; None leaves the number to ONNX Runtime.

    Raises:
        ConfigError: The bundle carries no head.
        BundleError: The file is not the head that the contract names.
    """

    def __init__(self, bundle: Bundle, contract: Contract, *, threads: int | None = None) -> None:
        if HEAD_FILE not in bundle.files:
            raise ConfigError(
                f"on_failure='local' needs the head in the bundle: expected {bundle.path / HEAD_FILE}, got nothing. "
                "Export with --with-head, or choose on_failure='raise'."
            )
        self._names = [spec.name for spec in contract.payload]
        self._graph = Graph(
            bundle.read(HEAD_FILE),
            contract.head.sha256,
            where=bundle.path / HEAD_FILE,
            inputs=contract.payload,
            outputs=(contract.answer,),
            device="cpu",
            threads=threads,
        )

    def answer(self, payload: Payload, deadline: Deadline) -> npt.NDArray[Any]:
        """Compute what the server would have answered.

        Args:
            payload: Arrays ``(N, *shape)`` in the order of ``contract.payload``.
            deadline: When to stop.

        Raises:
            BundleError: The graph failed.
            RuntimeUnavailable: Memory ran out, or the device was reset.
            DeadlineExceeded: The deadline passed.
        """
        (answer,) = self._graph.run(dict(zip(self._names, payload, strict=True)), deadline)
        return answer
