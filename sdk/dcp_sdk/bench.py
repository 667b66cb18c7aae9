"""What a call costs, stage by stage, and what of that the SDK adds to a program that has no checks and no retries."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .client import PrivateClient
from .errors import ConfigError, ServerUnavailable
from .obfuscate import graph_inputs
from .predictions import Prediction
from .preprocess import Image
from .stats import Percentiles, stages_of
from .transport.tls import client_context
from .transport.triton import TritonTransport
from .transport.triton_grpc import NO_PROXY, GrpcTransport

__all__ = ["Bare", "Budget", "measure", "paired_times"]

_WARM_UP = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Times of the same call made in three ways, in turns; all in milliseconds."""

    calls: int
    """How often each of the three was made."""
    stages: Mapping[str, Percentiles]
    """Of ``predict``, by stage, as in :attr:`Stats.stages`."""
    predict: Percentiles
    """The whole of ``client.predict(crop)``."""
    bare: Percentiles
    """The same device graph, and the same tensors through NVIDIA's own client."""
    tax: Percentiles
    """``predict`` less the bare call of the same turn."""
    noise: Percentiles
    """One bare call less the other of the same turn: a tax whose p99 is no larger than this was not measured."""


class Bare:
    """A program without the SDK: it runs the device graph and sends its outputs with tritonclient, and that is all.

    It runs the client's own session of that graph, and has a connection of its own.

    Args:
        client: Says which graph, which server, and how to reach it. Must outlive this.

    Raises:
        ConfigError: The client's server is no Triton, or NVIDIA's client for it is not installed.
    """

    def __init__(self, client: PrivateClient) -> None:
        transport = client._servers.first
        if not isinstance(transport, TritonTransport):
            raise ConfigError(
                f"expected a server with a Triton, such as grpc://localhost:8001, got {transport.address}: without a "
                "request there is nothing to compare with. Start one with `dcp serve`."
            )
        self._contract = client.manifest.contract
        self._graph = client._obfuscator.graph
        self._timeout_s = client.timeouts.predict_s
        self._headers = transport._request_headers()
        over_grpc = isinstance(transport, GrpcTransport)
        self._library: Any = _tritonclient("grpc" if over_grpc else "http")
        self._options = {"client_timeout": self._timeout_s} if over_grpc else {}
        self._connection = self._connect(transport)

    def __call__(self, crop_rgb: Image) -> Any:
        """Answer for a picture of the model's size, uint8 ``(S, S, 3)``: float32 ``(1, classes)``, not checked.

        Raises:
            ServerUnavailable: The server did not answer.
        """
        contract, library = self._contract, self._library
        tensors = self._graph.run(graph_inputs(contract, crop_rgb[None]))
        inputs = []
        for spec, tensor in zip(contract.payload, tensors, strict=True):
            inputs.append(library.InferInput(spec.name, tensor.shape, spec.triton_type))
            inputs[-1].set_data_from_numpy(tensor)
        try:
            answer = self._connection.infer(
                contract.head.model, inputs, str(contract.head.version), headers=self._headers, **self._options
            )
        except (library.InferenceServerException, OSError) as error:
            raise ServerUnavailable(
                f"expected an answer to a bare request, got {type(error).__name__}. Measure again when it is well."
            ) from error
        return answer.as_numpy(contract.answer.name)

    def close(self) -> None:
        """Free the connection."""
        self._connection.close()

    def _connect(self, transport: TritonTransport) -> Any:
        options: dict[str, Any] = {"ssl": transport._secure}
        if isinstance(transport, GrpcTransport):
            options |= {"creds": transport._credentials(), "channel_args": NO_PROXY}
        else:
            options |= {"connection_timeout": self._timeout_s, "network_timeout": self._timeout_s}
            if transport._secure:
                options["ssl_context_factory"] = lambda: client_context(transport._security)
        return self._library.InferenceServerClient(transport._target, **options)


def measure(client: PrivateClient, *, calls: int = 200) -> Budget:
    """Make the same call with ``client``, and twice without the SDK, in turns, over its first server.

    Args:
        client: Nobody else should use it meanwhile.
        calls: How often each of the three is made, besides 20 turns to warm up.

    Raises:
        ConfigError: ``calls`` is less than 1, or the client's server is no Triton.
        DCPError: As ``client.predict``.
    """
    if calls < 1:
        raise ConfigError(f"calls: expected at least 1, got {calls}.")
    side = client.manifest.contract.preprocessing.size_px
    crop = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    bare = Bare(client)
    predictions: list[Prediction] = []
    try:
        predict, once, again = paired_times(
            [lambda: predictions.append(client.predict(crop)), lambda: bare(crop), lambda: bare(crop)], calls
        )
    finally:
        bare.close()
    return Budget(
        calls=calls,
        stages=stages_of([prediction.timings for prediction in predictions[-calls:]]),
        predict=Percentiles.of(predict),
        bare=Percentiles.of(once),
        tax=Percentiles.of(predict - once),
        noise=Percentiles.of(again - once),
    )


def paired_times(calls: Sequence[Callable[[], object]], turns: int) -> npt.NDArray[np.float64]:
    """Make each of the calls once in every turn, in an order that changes, after 20 turns to warm up.

    Returns:
        Milliseconds, ``(calls, turns)``: what the machine does besides meets all calls of a turn alike.
    """
    count = len(calls)
    times = np.empty((count, turns))
    for turn in range(-_WARM_UP, turns):
        for place in ((turn + shift) % count for shift in range(count)):
            start = time.perf_counter()
            calls[place]()
            times[place, max(turn, 0)] = (time.perf_counter() - start) * 1000
    return times


def _tritonclient(protocol: str) -> Any:
    try:
        return importlib.import_module(f"tritonclient.{protocol}")
    except (ImportError, RuntimeError) as error:  # it raises the latter
        raise ConfigError(
            f"expected NVIDIA's client for {protocol.upper()}, to compare with, got {error}. "
            "Run `pip install 'tritonclient[http]'`, or measure over grpc://."
        ) from error
