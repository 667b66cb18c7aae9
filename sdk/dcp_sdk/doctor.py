"""What could keep this machine from predicting, each finding with the command that mends it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from ._version import __version__
from .bundles.bundle import Bundle
from .bundles.manifest import Manifest
from .bundles.signing_keys import KeySource
from .camera import Camera
from .config import Device, Timeouts
from .contract import Contract
from .errors import ConfigError, ContractMismatch, DCPError
from .guard import check_payload
from .obfuscate import Obfuscator
from .runtime import why_no_cuda
from .security import Security
from .serving.triton_install import TritonInstall
from .transport import open_transports

__all__ = ["Finding", "State", "diagnose"]

_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_ONNX_RUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


_DRIVER = "libcuda.so.1"

State = Literal["ok", "note", "problem"]
"""``note``: something is absent that not everybody needs; ``problem``: predicting will fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the diagnosis."""

    subject: str
    """What was looked at."""
    state: State
    detail: str
    """What was found."""
    remedy: str = ""
    """The command that mends it; empty where nothing needs mending."""


def diagnose(
    bundle: Path | None = None,
    server: str | None = None,
    *,
    camera: int | str = 0,
    device: Device = "auto",
    trusted_keys: Sequence[KeySource] | None = None,
    headers: Mapping[str, str] | None = None,
    security: Security | None = None,
) -> Iterator[Finding]:
    """Look at this machine, then at a bundle, then at the server it is paired with.

    Args:
        bundle: Folder or archive of a bundle, or None.
        server: Address as ``PrivateClient`` takes it, or None. Looked at only together with a bundle.
        camera: Number or URL of the camera to try.
        device: What is needed; with ``cuda`` or ``tensorrt``, whatever keeps CUDA from working is a problem.
        trusted_keys: As ``PrivateClient`` takes them.
        headers: Likewise.
        security: Likewise.

    Yields:
        Findings, as soon as each is known. Nothing is raised for what is found, and no picture is sent.
    """
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("dcp_sdk", "ok", f"{__version__} in {Path(__file__).parent}")
    yield _one_of("ONNX Runtime", _ONNX_RUNTIME, f"pip install onnxruntime-gpu=={ort.__version__}")
    yield from _cuda(needed=device in ("cuda", "tensorrt"))
    yield _one_of("OpenCV", _OPENCV, "pip install --force-reinstall dcp-private-client")
    yield _camera(camera)
    yield _triton()
    if bundle is None:
        return
    try:
        opened = Bundle.open(bundle, trusted_keys=trusted_keys)
        manifest = Manifest.load(opened)
        contract = manifest.contract
        yield Finding("bundle", "ok", f"{manifest.name}, contract {contract.digest[:12]}…")
        yield Finding("device graph", "ok", _run_device_graph(opened, contract, device))
    except DCPError as error:  # each of ours names its own remedy
        yield Finding("bundle", "problem", str(error))
        return
    if server is not None:
        yield from _server(server, contract, headers, security)


def _one_of(subject: str, packages: tuple[str, ...], install: str) -> Finding:
    """Check that exactly one of ``packages`` is installed: they write into one and the same folder."""
    installed = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    detail = ", ".join(f"{package} {number}" for package, number in installed.items()) or "not installed"
    if len(installed) == 1:
        return Finding(subject, "ok", detail)
    remove = f"pip uninstall --yes {' '.join(installed)} && " if installed else ""
    return Finding(subject, "problem", detail, remove + install)


def _cuda(*, needed: bool) -> Iterator[Finding]:
    bad: State = "problem" if needed else "note"
    reason = why_no_cuda()
    if reason:
        yield Finding("CUDA", bad, f"CPU only: {reason}")
    else:
        yield Finding("CUDA", "ok", "all of its libraries load")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        ort.preload_dlls()
    for library in _cuda_libraries():
        try:
            ctypes.CDLL(library)
        except OSError:
            driver = library == _DRIVER
            remedy = "install NVIDIA's driver" if driver else "pip install 'onnxruntime-gpu[cuda,cudnn]'"
            yield Finding(library, bad, "missing", remedy)
        else:
            yield Finding(library, "ok", "found")


def _cuda_libraries() -> list[str]:
    """Name what this ONNX Runtime loads for CUDA on Linux; the driver first."""
    major = str(getattr(ort, "cuda_version", "")).partition(".")[0]
    if not sys.platform.startswith("linux") or not major:
        return []
    toolkit = [f"lib{name}.so.{major}" for name in ("cudart", "cublas", "cublasLt", "nvrtc")]
    return [_DRIVER, *toolkit, "libcurand.so.10", "libcudnn.so.9"]


def _camera(device: int | str) -> Finding:
    if isinstance(device, int) and sys.platform.startswith("linux") and not Path(f"/dev/video{device}").exists():
        return Finding("camera", "note", f"no /dev/video{device}; pictures and videos work without")
    try:
        with Camera(device) as camera:
            height, width = camera.read().image_rgb.shape[:2]
    except DCPError as error:
        return Finding("camera", "note", str(error))
    return Finding("camera", "ok", f"{camera.name} gives {width} x {height}")


def _triton() -> Finding:
    """Look for the environment of ``dcp serve``, which only a machine that serves needs."""
    try:
        install = TritonInstall.find(Path(".venv-triton"))
    except ConfigError:
        return Finding("tritonserver", "note", "no .venv-triton here; only `dcp serve` needs it", "make triton")
    return Finding("tritonserver", "ok", str(install.binary))


def _run_device_graph(bundle: Bundle, contract: Contract, device: Device) -> str:
    obfuscator = Obfuscator(bundle, contract, device=device)
    blank = np.zeros((1, *contract.input.shape), contract.input.dtype)
    check_payload(contract, obfuscator.run(blank))
    return f"runs on {obfuscator.provider}; its payload is what the contract says"


def _server(
    server: str, contract: Contract, headers: Mapping[str, str] | None, security: Security | None
) -> Iterator[Finding]:
    try:
        (transport,) = open_transports(server, None, headers=headers, security=security)
    except DCPError as error:
        yield Finding("server", "problem", str(error))
        return
    try:
        transport.connect(contract, Timeouts().connect_s)
    except ContractMismatch as error:
        yield Finding("server", "ok", f"{transport.address} answers")
        yield Finding("pairing", "problem", str(error))
    except DCPError as error:
        yield Finding("server", "problem", str(error))
    else:
        yield Finding("server", "ok", f"{transport.address} answers")
        yield Finding("pairing", "ok", f"contract {contract.digest[:12]}…")
    finally:
        transport.close()
