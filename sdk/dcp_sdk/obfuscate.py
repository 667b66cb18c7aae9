"""From pixels to payload in one ONNX Runtime session: unpruned activations never exist outside it."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundles.bundle import DEVICE_GRAPH_FILE, Bundle, BundleLike
from .config import Device
from .contract import Contract
from .deadline import Deadline
from .runtime import Graph, Provider

__all__ = ["Obfuscator", "Payload"]

Payload = tuple[npt.NDArray[Any], ...]
"""Arrays ``(N, *shape)`` in the order of ``contract.payload``: all that a server ever receives."""


class Obfuscator:
    """The device graph: normalise, client network, pruner, hard mask, pack, quantise. Thread-safe.

    Args:
        bundle: A bundle that was opened, or the path of its folder or archive.
        contract: The bundle's contract; it names the graph's hash and tensors.
        device: ``cpu``; ``cuda`` or ``tensorrt``, every node on the GPU or an error; ``auto``, CUDA if it works.
        threads: CPU threads of one run; None leaves the number to ONNX Runtime.
        cuda_graph: Capture the work of each batch size once, and replay it.

    Raises:
        BundleError: ``device.onnx`` is missing, edited, holds what no device graph needs, or is not what the
            contract says.
        RuntimeUnavailable: ``device`` is ``cuda`` or ``tensorrt``, and it cannot run the whole graph.
        ConfigError: ``device`` or ``threads`` makes no sense.
    """

    def __init__(
        self,
        bundle: BundleLike,
        contract: Contract,
        *,
        device: Device = "auto",
        threads: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        self._contract = contract
        opened = Bundle.of(bundle)
        self._graph = Graph(
            opened.read(DEVICE_GRAPH_FILE),
            contract.device_sha256,
            where=opened.path / DEVICE_GRAPH_FILE,
            inputs=contract.device_inputs,
            outputs=contract.payload,
            device=device,
            threads=threads,
            cuda_graph=cuda_graph,
        )

    @property
    def provider(self) -> Provider:
        """What the graph really runs on."""
        return self._graph.provider

    @property
    def graph(self) -> Graph:
        """The device graph, for what measures it alone."""
        return self._graph

    def run(self, pixels: npt.NDArray[np.uint8], deadline: Deadline | None = None) -> Payload:
        """Compute the payload of a batch.

        Args:
            pixels: uint8 ``(N, S, S, 3)``, RGB, as ``preprocess`` gives them.
            deadline: When to stop; None never stops.

        Raises:
            BundleError: The graph failed.
            RuntimeUnavailable: Memory ran out, or the device was reset.
            DeadlineExceeded: The deadline passed.
        """
        return self._graph.run(graph_inputs(self._contract, pixels), deadline)


def graph_inputs(contract: Contract, pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Return what one run of the device graph takes, by name: the pixels, and fresh random numbers where it has noise.

    Args:
        contract: The bundle's.
        pixels: uint8 ``(N, S, S, 3)``.
    """
    inputs: dict[str, npt.NDArray[Any]] = {contract.input.name: pixels}
    if contract.noise is not None:
        inputs[contract.noise.name] = draw_uniform((len(pixels), *contract.noise.shape))
    return inputs


def draw_uniform(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Draw from the operating system's generator, whose numbers nobody who sees earlier ones can predict.

    Returns:
        float32 of this shape, multiples of 2^-24, uniform in [0, 1).
    """
    words = np.frombuffer(os.urandom(4 * math.prod(shape)), np.uint32).reshape(shape)
    return (words >> 8).astype(np.float32) * np.float32(2**-24)
