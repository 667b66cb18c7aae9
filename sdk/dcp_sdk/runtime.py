"""ONNX Runtime: open a verified graph on the device that was asked for, all of it or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _ort

from .bundles.onnx_check import check_graph, check_hash, constant_outputs
from .config import Device
from .contract import TensorSpec
from .deadline import Deadline
from .device_buffers import DeviceBuffers, nodes_elsewhere
from .errors import BundleError, ConfigError, RuntimeUnavailable
from .watchdog import Watchdog

__all__ = ["Graph", "Provider", "why_no_cuda"]

Provider = Literal["cpu", "cuda", "tensorrt"]
"""What a graph really runs on."""

_Run = Callable[[Mapping[str, npt.NDArray[Any]], ort.RunOptions, float | None], tuple[npt.NDArray[Any], ...]]
"""Inputs by name, options, and the seconds that it may wait before it runs."""

# ONNX Runtime's exceptions have no common base of their own, and each version may bring more of them.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_ort).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    MemoryError,
    RuntimeError,
    ValueError,
)
_DEVICE_RESET: tuple[type[Exception], ...] = tuple(kind for kind in _ORT_ERRORS if kind.__name__ == "DeviceReset")
"""Empty where ONNX Runtime is too old to tell."""
_NO_MEMORY = re.compile(r"failed to allocate|bad_alloc|alloc_failed|out of memory", re.IGNORECASE)
"""Words of ONNX Runtime, cuBLAS and CUDA. There is no class of error for it."""
_ONNX_TYPES = {"tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(float)": "float32"}
_MOST_THREADS = 1024
_WATCHDOG = Watchdog()
_INSTALL_CUDA = "Run: pip install 'dcp-private-client[cuda]', or choose device='cpu'."


class Graph:
    """One ONNX graph, known by its hash, with exactly the tensors that it should have. Thread-safe.

    Args:
        graph: Content of the ``.onnx`` file; weights inside, no external data.
        sha256: Hash that it must have. The bytes that were hashed are the bytes that are run.
        where: The file that it was read from, for messages.
        inputs: Tensors that the graph takes: these and no others.
        outputs: Tensors that the graph gives: these and no others.
        device: ``cpu``; ``cuda``, every node on the GPU; ``tensorrt``, the same by TensorRT where it can, else by CUDA;
            ``auto``, CUDA if it works.
        threads: CPU threads of one run; None leaves the number to ONNX Runtime.
        cuda_graph: Capture the work of each batch size once, and replay it.

    Raises:
        BundleError: It has another hash, is no ONNX graph, holds what no graph of ours needs, or has other tensors.
        RuntimeUnavailable: ``device`` is ``cuda`` or ``tensorrt``, and it cannot run the whole graph.
        ConfigError: ``device`` or ``threads`` makes no sense, or there is a CUDA graph to be captured on the CPU.
    """

    def __init__(
        self,
        graph: bytes,
        sha256: str,
        *,
        where: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        device: Device = "auto",
        threads: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        if device not in get_args(Device):
            raise ConfigError(f"device: expected one of {', '.join(get_args(Device))}, got {device!r}.")
        if cuda_graph and device == "cpu":
            raise ConfigError("cuda_graph: expected device 'cuda', 'tensorrt' or 'auto' with it, got 'cpu'.")
        if threads is not None and not 1 <= threads <= _MOST_THREADS:
            raise ConfigError(f"threads: expected 1 to {_MOST_THREADS:,}, or None, got {threads}.")
        check_hash(graph, sha256, where)
        check_graph(graph, where)
        session = _cpu_session(graph, where, threads)
        _check_tensors(where, "inputs", session.get_inputs(), inputs)
        _check_tensors(where, "outputs", session.get_outputs(), outputs)
        self._where = where
        self.provider: Provider = "cpu"
        names = [spec.name for spec in outputs]
        self._run = _on_cpu(session, names)
        if device != "cpu":
            wanted: Provider = "cuda" if device == "auto" else device
            batch_names = {node.shape[0] for node in session.get_inputs() if isinstance(node.shape[0], str)}

            def open_session(batch: int) -> ort.InferenceSession:
                return _gpu_session(graph, where, wanted, dict.fromkeys(batch_names, batch), cuda_graph=cuda_graph)

            nothing = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in inputs}
            constants = {name: session.run([name], nothing)[0] for name in constant_outputs(graph, names)}
            try:
                self._run = _on_gpu(lambda: DeviceBuffers(open_session, inputs, outputs, constants=constants))
                self.provider = wanted
            except RuntimeUnavailable:
                if device != "auto":
                    raise

    def run(
        self, inputs: Mapping[str, npt.NDArray[Any]], deadline: Deadline | None = None
    ) -> tuple[npt.NDArray[Any], ...]:
        """Run the graph.

        Args:
            inputs: Array ``(N, *shape)`` per input name.
            deadline: When to stop, after the node that runs at that moment; None never stops.

        Returns:
            Arrays ``(N, *shape)`` in the order of ``outputs``.

        Raises:
            BundleError: The graph failed.
            RuntimeUnavailable: Memory ran out, or the device was reset.
            DeadlineExceeded: The deadline passed.
        """
        options = ort.RunOptions()
        try:
            if deadline is None:
                return self._run(inputs, options, None)
            left_s = deadline.left_s()
            with _WATCHDOG.watching(left_s, lambda: setattr(options, "terminate", True)):
                return self._run(inputs, options, left_s)
        except TimeoutError as error:
            assert deadline is not None
            raise deadline.exceeded(f"the turn of {self._where} on the GPU") from error
        except _ORT_ERRORS as error:
            if deadline is not None and options.terminate:
                deadline.check(f"a run of {self._where}")
            if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
                raise RuntimeUnavailable(
                    f"expected memory for a run of {self._where}, there was none left. "
                    "Give fewer pictures at a time, or free memory on this device."
                ) from error
            if isinstance(error, _DEVICE_RESET):
                raise RuntimeUnavailable(
                    f"expected the device to stay for a run of {self._where}, it was reset. "
                    "Make a new client, or choose device='cpu'."
                ) from error
            raise BundleError(
                f"{self._where} failed while running ({type(error).__name__}). Export it again."
            ) from error


def why_no_cuda() -> str | None:
    """Say what keeps ONNX Runtime from using CUDA here, and how to mend it; None if all libraries load.

    ONNX Runtime itself falls back to the CPU without a word to its caller, so the libraries that it needs are
    opened one by one here.
    """
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"this onnxruntime {ort.__version__} is built without CUDA. {_INSTALL_CUDA}"
    windows = sys.platform == "win32"
    try:
        ctypes.CDLL("nvcuda.dll" if windows else "libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver ({error}). Install the driver, or choose device='cpu'."
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it cannot find; the next lines say it better
        ort.preload_dlls()
    libraries = Path(ort.__file__).parent / "capi"
    prefix, suffix = ("", ".dll") if windows else ("lib", ".so")
    try:
        ctypes.CDLL(str(libraries / f"{prefix}onnxruntime_providers_shared{suffix}"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(libraries / f"{prefix}onnxruntime_providers_cuda{suffix}"))
    except OSError as error:
        return f"a CUDA library is missing ({error}). {_INSTALL_CUDA}"
    return None


def _cpu_session(graph: bytes, where: Path, threads: int | None) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(graph, _options(threads), providers=["CPUExecutionProvider"])
    except _ORT_ERRORS as error:
        raise BundleError(f"{where} is not a graph that onnxruntime {ort.__version__} runs: {error}") from error


def _on_cpu(session: ort.InferenceSession, outputs: list[str]) -> _Run:
    return lambda inputs, options, _: tuple(session.run(outputs, dict(inputs), options))


def _on_gpu(open_buffers: Callable[[], DeviceBuffers]) -> _Run:
    """Open the graph on the GPU, where its first runs come with it.

    Raises:
        RuntimeUnavailable: The GPU cannot run it.
    """
    try:
        return open_buffers().run
    except _ORT_ERRORS as error:
        raise RuntimeUnavailable(
            f"expected a first run on the GPU, it failed: {error}. Choose device='cpu', or leave cuda_graph away."
        ) from error


def _gpu_session(
    graph: bytes, where: Path, provider: Provider, batch: Mapping[str, int], *, cuda_graph: bool
) -> ort.InferenceSession:
    """Open the graph for one batch size, and prove by the session's own record that all of it runs on the GPU."""
    expected = f"device {provider!r} means that all of {where.name} runs there, but"
    if reason := why_no_cuda():
        raise RuntimeUnavailable(f"{expected} {reason}")
    options = _options(None)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for name, size in batch.items():
        options.add_free_dimension_override_by_name(name, size)
    capture = str(int(cuda_graph))
    cuda = {
        "use_tf32": "0",  # it would move scores by 1e-3 and with them the hard threshold
        "cudnn_conv_algo_search": "HEURISTIC",  # trying every algorithm makes a first run late, and none faster here
    }
    providers = [("CUDAExecutionProvider", cuda | {"enable_cuda_graph": capture})]
    if provider == "tensorrt":
        tensorrt = {"trt_cuda_graph_enable": capture}
        providers = [("TensorrtExecutionProvider", tensorrt), ("CUDAExecutionProvider", cuda)]
    names = [name for name, _ in providers]
    try:
        session = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    except _ORT_ERRORS as error:
        raise RuntimeUnavailable(f"{expected} ONNX Runtime says: {error} {_INSTALL_CUDA}") from error
    if missing := set(names) - set(session.get_providers()):
        raise RuntimeUnavailable(f"{expected} the session got no {', '.join(sorted(missing))}. {_INSTALL_CUDA}")
    if elsewhere := nodes_elsewhere(session, names):
        raise RuntimeUnavailable(f"{expected} it has {'; '.join(elsewhere[:3])}. Choose device='cpu'.")
    return session


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; everything below is for people who write graphs
    # Waiting threads would spin for milliseconds after each run, on the cores that the request now needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _check_tensors(where: Path, what: str, actual: Sequence[ort.NodeArg], specs: Sequence[TensorSpec]) -> None:
    found = {node.name: node for node in actual}
    if set(found) != {spec.name for spec in specs}:
        raise BundleError(f"{where}: expected the {what} {[spec.name for spec in specs]}, got {sorted(found)}.")
    for spec in specs:
        node = found[spec.name]
        dtype = _ONNX_TYPES.get(node.type, node.type)
        if dtype != np.dtype(spec.dtype).name or tuple(node.shape[1:]) != spec.shape:
            raise BundleError(
                f"{where}: expected {spec.name} to be {spec.dtype} (N, {', '.join(map(str, spec.shape))}), "
                f"got {dtype} {tuple(node.shape)}. Export the bundle again."
            )
        if isinstance(node.shape[0], int):
            raise BundleError(
                f"{where}: {spec.name} has a fixed batch of {node.shape[0]}; export it with a free batch."
            )
