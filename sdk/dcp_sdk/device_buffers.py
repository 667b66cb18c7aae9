"""Run a graph on a GPU without allocating: one session for each batch size, whose tensors stay where they are.

With the batch fixed, what computes shapes folds away, which ONNX Runtime would otherwise put on the CPU; and a CUDA
graph, which replays the very same addresses, can be captured.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from .aside import no_thread
from .contract import TensorSpec

__all__ = ["DeviceBuffers", "nodes_elsewhere"]

_MOST_SESSIONS = 8
"""Each holds weights and tensors on the device: of more batch sizes the one that was not used for longest is closed."""

OpenSession = Callable[[int], ort.InferenceSession]
"""Opens the graph for one batch size."""


class DeviceBuffers:
    """Sessions with their inputs and outputs bound to memory of the device. Thread-safe: one run at a time.

    ONNX Runtime allows no second thread in a session that replays a CUDA graph.

    Args:
        open_session: Opens the graph for one batch size, or raises.
        inputs: Tensors that the graph takes.
        outputs: Tensors that the graph gives.
        constants: Outputs that no input changes, by name: array ``(1, *shape)``, the row of every picture. They are not
            computed again, and must not: ONNX Runtime would copy them while a CUDA graph is captured, which CUDA
            forbids.
        memory: Where the tensors lie, as ONNX Runtime calls it.
    """

    def __init__(
        self,
        open_session: OpenSession,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        constants: Mapping[str, npt.NDArray[Any]],
        memory: str = "cuda",
    ) -> None:
        self._open, self._inputs, self._outputs, self._memory = open_session, inputs, outputs, memory
        self._constants = constants
        self._asking = threading.Lock()
        self._running = threading.Lock()
        self._bound: OrderedDict[int, _Bound] = OrderedDict()
        self._opening: dict[int, Future[None]] = {}
        self._bind(1)

    def run(
        self, inputs: Mapping[str, npt.NDArray[Any]], options: ort.RunOptions, timeout_s: float | None = None
    ) -> tuple[npt.NDArray[Any], ...]:
        """Run the graph on copies of ``inputs``; the first run with a batch size opens a session for it.

        Args:
            inputs: Array ``(N, *shape)`` per input name.
            options: Of this run.
            timeout_s: Longest wait in seconds for the session to be opened, and for the runs of others; None waits. A
                session that comes too late for this run is there for the next.

        Returns:
            Arrays ``(N, *shape)`` in the order of ``outputs``, in memory of their own.

        Raises:
            TimeoutError: The wait was too long.
            RuntimeUnavailable: A session is needed, and no thread can be had to open it.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        batch = len(inputs[self._inputs[0].name])
        while True:
            if batch not in self._bound:
                self._opened(batch).result(_left_s(end))
            left_s = _left_s(end)
            if not self._running.acquire(timeout=-1 if left_s is None else left_s):
                raise TimeoutError
            try:
                if bound := self._bound.get(batch):  # else it was closed again meanwhile, for another size
                    self._bound.move_to_end(batch)
                    return bound.run(inputs, options)
            finally:
                self._running.release()

    def _opened(self, batch: int) -> Future[None]:
        """Open a session from a thread of its own: nothing calls that off, and nobody need wait for its end."""
        with self._asking:
            opening = self._opening.get(batch)
            if opening is None:
                opening = Future()
                thread = threading.Thread(target=self._open_for, args=(batch, opening), name="dcp opening", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise no_thread("to open a session") from error
                self._opening[batch] = opening
            return opening

    def _open_for(self, batch: int, opening: Future[None]) -> None:
        try:
            with self._running:  # CUDA allows nobody to allocate memory while another thread captures a graph
                self._bind(batch)
        except BaseException as error:  # noqa: BLE001 - it is theirs who wait
            with self._asking:
                del self._opening[batch]  # who asks next tries again
            opening.set_exception(error)
        else:
            opening.set_result(None)

    def _bind(self, batch: int) -> None:
        """Open, run, and replay: what fails, or takes its time, does so now and not in somebody's run."""
        constants = {name: np.repeat(row, batch, axis=0) for name, row in self._constants.items()}
        bound = _Bound(self._open(batch), batch, self._inputs, self._outputs, constants, self._memory)
        nothing = {spec.name: np.zeros((batch, *spec.shape), spec.dtype) for spec in self._inputs}
        for _ in range(2):  # the second run replays the first where a CUDA graph is captured
            bound.run(nothing, ort.RunOptions())
        self._bound[batch] = bound
        if len(self._bound) > _MOST_SESSIONS:
            oldest, _ = self._bound.popitem(last=False)
            with self._asking:
                self._opening.pop(oldest, None)


def _left_s(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


class _Bound:
    """A session for one batch size, and its tensors."""

    def __init__(
        self,
        session: ort.InferenceSession,
        batch: int,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        constants: Mapping[str, npt.NDArray[Any]],
        memory: str,
    ) -> None:
        def allocate(spec: TensorSpec) -> ort.OrtValue:
            return ort.OrtValue.ortvalue_from_shape_and_type((batch, *spec.shape), np.dtype(spec.dtype), memory, 0)

        self._session, self._binding = session, session.io_binding()
        self._inputs = {spec.name: allocate(spec) for spec in inputs}
        self._types = {spec.name: (np.dtype(spec.dtype), (batch, *spec.shape)) for spec in inputs}
        self._names, self._constants = [spec.name for spec in outputs], constants
        self._outputs = {spec.name: allocate(spec) for spec in outputs if spec.name not in constants}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]], options: ort.RunOptions) -> tuple[npt.NDArray[Any], ...]:
        for name, value in self._inputs.items():
            given, expected = inputs[name], self._types[name]
            if (given.dtype, given.shape) != expected:
                raise ValueError(f"{name}: expected {expected}, got {(given.dtype, given.shape)}")
            value.update_inplace(given)  # into the same place: a captured graph reads there again
        self._session.run_with_iobinding(self._binding, options)
        found = {**{name: value.numpy() for name, value in self._outputs.items()}, **self._constants}
        return tuple(np.array(found[name]) for name in self._names)  # copies: the next run writes into the same place


def nodes_elsewhere(session: ort.InferenceSession, providers: Sequence[str]) -> list[str]:
    """Name the nodes that ONNX Runtime gave to other providers than these, as the session itself recorded it.

    Args:
        session: Made with ``session.record_ep_graph_assignment_info``.
        providers: Names of execution providers.

    Returns:
        ``NAME (OPERATOR) on PROVIDER`` for each; empty if all are where they should be, or if this ONNX Runtime is too
        old to keep that record: then ``session.disable_cpu_ep_fallback`` alone holds.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    return [
        f"{node.name} ({node.op_type}) on {part.ep_name}"
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name not in providers
        for node in part.get_nodes()
    ]
