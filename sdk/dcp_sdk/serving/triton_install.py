"""Find the Triton binary of the PyPI package ``nvidia-pytriton`` and what it needs to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError

__all__ = ["TritonInstall"]

# Runs in the environment's own Python.
_PROBE = """
import ctypes, importlib.metadata, json, pathlib, sys, sysconfig
def installed(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
version = f"{sys.version_info.major}.{sys.version_info.minor}"
library_folder = sysconfig.get_config_var("LIBDIR")
libpython = f"libpython{version}.so.1.0"
try:
    ctypes.CDLL(libpython)
    has_libpython = True
except OSError:
    has_libpython = pathlib.Path(library_folder, libpython).is_file()
print(json.dumps({
    "version": version, "packages": sysconfig.get_path("purelib"),
    "library_folder": library_folder, "has_libpython": has_libpython,
    "numpy": installed("numpy"), "onnxruntime": installed("onnxruntime"),
}))
"""


@dataclass(frozen=True)
class TritonInstall:
    """A virtual environment that holds ``nvidia-pytriton``, ``onnxruntime`` and ``numpy<2``."""

    venv: Path
    """Root of the environment."""
    root: Path
    """The package's ``tritonserver`` folder."""
    python_version: str
    """``major.minor`` of the environment's Python: the Python backend has one executable for each."""
    library_folder: Path
    """Where the environment's ``libpython`` lies."""

    @classmethod
    def find(cls, venv: Path) -> Self:
        """Inspect the environment ``venv``.

        Raises:
            ConfigError: This is not Linux, there is no such environment, a package is missing or of the wrong
                version, or the server has no backend for its Python.
        """
        if not sys.platform.startswith("linux"):
            raise ConfigError(
                f"expected Linux on x86_64 for the packaged tritonserver, got {sys.platform}. "
                "Run NVIDIA's tritonserver image on the same repository (triton_models/README.md)."
            )
        facts = _inspect(venv)
        install = cls(
            venv=venv.absolute(),
            root=Path(facts["packages"]) / "pytriton" / "tritonserver",
            python_version=facts["version"],
            library_folder=Path(facts["library_folder"]),
        )
        if not install.binary.is_file():
            raise _unfit(venv, "one without nvidia-pytriton")
        if facts["onnxruntime"] is None:
            raise _unfit(venv, "one without onnxruntime")
        # With NumPy 2 this server gets ready too, and then reads garbage and answers nothing.
        if not str(facts["numpy"]).startswith("1."):
            raise _unfit(venv, f"one with NumPy {facts['numpy']} where numpy<2 is needed")
        if not install.stub.is_file():
            raise _unfit(
                venv,
                f"one of Python {install.python_version}, which the server has no backend for (3.11 to 3.13)",
            )
        if not facts["has_libpython"]:
            raise ConfigError(
                f"expected libpython{install.python_version}.so.1.0, which the server's backend loads, "
                f"got none. On Debian and Ubuntu: sudo apt install libpython{install.python_version}"
            )
        return install

    @property
    def binary(self) -> Path:
        """The server."""
        return self.root / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The process in which the Python backend runs a model."""
        return self.root / "python_backend_stubs" / self.python_version / "triton_python_backend_stub"

    def link_backends(self, folder: Path) -> None:
        """Fill ``folder`` as a backend directory: Triton wants library and stub side by side."""
        backend = folder / "python"
        backend.mkdir(parents=True)
        packaged = self.root / "backends" / "python"
        library, helpers = packaged / "libtriton_python.so", packaged / "triton_python_backend_utils.py"
        for file in (library, helpers, self.stub):
            (backend / file.name).symlink_to(file)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return ``base`` changed so that the server's models run in this environment and in no other."""
        environment = {key: value for key, value in base.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        environment["VIRTUAL_ENV"] = str(self.venv)
        # The stub takes the environment of the first `python3` on PATH; the loader must find its libpython.
        environment["PATH"] = _prepend(self.venv / "bin", base.get("PATH"))
        environment["LD_LIBRARY_PATH"] = _prepend(self.library_folder, base.get("LD_LIBRARY_PATH"))
        return environment


def _inspect(venv: Path) -> dict[str, Any]:
    python = venv / "bin" / "python"
    if not python.exists():
        raise _unfit(venv, "none")
    try:
        probe = subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, text=True, check=False, timeout=60)
        facts: dict[str, Any] = json.loads(probe.stdout) if probe.returncode == 0 else {}
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise _unfit(venv, f"one whose Python does not answer ({type(error).__name__})") from error
    if probe.returncode != 0:
        raise _unfit(venv, f"one whose Python ends with status {probe.returncode}")
    return facts


def _prepend(folder: Path, path: str | None) -> str:
    return f"{folder}{os.pathsep}{path}" if path else str(folder)


def _unfit(venv: Path, got: str) -> ConfigError:
    return ConfigError(
        f"expected a virtual environment with nvidia-pytriton at {venv}, got {got}. "
        "Run `make triton` in the repository, which creates .venv-triton, or name the right folder."
    )
