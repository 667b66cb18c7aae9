"""A real Triton server as a child process: for the demo, for tests, and for serving without containers.

The binary comes from the PyPI package ``nvidia-pytriton``, which lives in a virtual environment of its own,
since the server's NumPy must stay below 2. Linux on x86_64 only; elsewhere, and in production, run NVIDIA's
image on the same repository.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..errors import ConfigError, ServerUnavailable
from .process_group import ProcessGroup
from .repository import ModelRepository
from .triton_install import TritonInstall

__all__ = ["ADMIN_KEY_HEADER", "KEY_HEADER", "TritonServer"]

KEY_HEADER = "dcp-key"
"""Header of the access key: as it is over HTTP, with ``triton-grpc-protocol-`` before it over gRPC."""
ADMIN_KEY_HEADER = f"{KEY_HEADER}-admin"
"""The same for the key of whoever loads and unloads models. No device has it: a loaded model is code that runs."""

_EXIT_TIMEOUT_S = 3
_PLAIN_PATH = re.compile(r"[\w./@%+=:,-]+", re.ASCII)
_POLL_S = 0.02
_SHARED_MEMORY = Path("/dev/shm")
_ERROR_LINE = re.compile(r"^\S+ E \d+ |unrecognized option")


class TritonServer:
    """Run ``tritonserver`` on a model repository for the length of a ``with`` block.

    When the block ends, for whatever reason, no process, shared memory or temporary file is left. Started
    from the main thread, the server also ends when this process is killed; a temporary folder of links stays
    then.

    Args:
        repository: Model repository; each model is a folder in it.
        models: Names of the models to load; None loads all that are there. Being ready means that all of them are.
        venv: Virtual environment with ``nvidia-pytriton``, ``onnxruntime`` and ``numpy<2``.
        host: Interface to listen on. Anything but loopback is open to the network, unencrypted.
        http_port: Port, or None for a free one.
        grpc_port: Port, or None for a free one.
        metrics: Serve Prometheus metrics at :attr:`metrics_address`.
        metrics_port: Port, or None for a free one.
        key: If given, inference needs this value in the header :data:`KEY_HEADER`. Triton takes keys as flags only:
            users of this machine find them in the list of its processes.
        admin_key: Loading and unloading models needs this value in the header :data:`ADMIN_KEY_HEADER`. Without it
            nobody can.
        extra_flags: Further flags of ``tritonserver``.
        log: File to write the server's log to, or an open stream; None keeps it until the end, for error
            messages.
        ready_timeout_s: Seconds that starting may take.

    Raises:
        ConfigError: The environment, the repository or a model is missing, or a port is not to be had.

    Example:
        >>> with TritonServer("triton_models") as server:  # doctest: +SKIP
        ...     client = PrivateClient("bundles/gender_112", server.grpc_address)
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        models: Sequence[str] | None = None,
        venv: str | Path = ".venv-triton",
        host: str = "127.0.0.1",
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics: bool = False,
        metrics_port: int | None = None,
        key: str | None = None,
        admin_key: str | None = None,
        extra_flags: Sequence[str] = (),
        log: str | Path | IO[Any] | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        self._repository = Path(repository)
        self._models = ModelRepository(repository).require_models() if models is None else tuple(models)
        if not self._models:
            raise ConfigError("models: expected some to load, or None for all that are there, got none.")
        for model in self._models:
            if not (self._repository / model / "config.pbtxt").is_file():
                raise ConfigError(
                    f"expected a Triton model at {self._repository / model}, got no config.pbtxt there. "
                    "Give the folder that export/to_onnx.py wrote with --model-repository."
                )
        self._install = TritonInstall.find(Path(venv))
        self._host = host
        self._http_port, self._grpc_port, self._metrics_port = _choose_ports(
            host, http_port, grpc_port, metrics_port if metrics else None
        )
        self._metrics = metrics
        self._key, self._admin_key = key, admin_key
        self._extra_flags = tuple(extra_flags)
        self._log = log
        self._ready_timeout_s = ready_timeout_s
        self._shared_memory_prefix = f"dcp_triton_{os.getpid()}_{secrets.token_hex(8)}_"
        self._folder: Path | None = None
        self._process: ProcessGroup | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def grpc_address(self) -> str:
        """Address for ``PrivateClient``: ``grpc://HOST:PORT``."""
        return f"grpc://{self._reach}:{self._grpc_port}"

    @property
    def http_address(self) -> str:
        """Address for ``PrivateClient``: ``http://HOST:PORT``."""
        return f"http://{self._reach}:{self._http_port}"

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus finds the metrics; None if they are off."""
        return f"http://{self._reach}:{self._metrics_port}/metrics" if self._metrics else None

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are loaded at the start."""
        return self._models

    @property
    def pid(self) -> int | None:
        """Process and process group of the server; None while it does not run."""
        return self._process.pid if self._process and not self._process.ended else None

    def start(self) -> Self:
        """Start the server and wait until every model is ready.

        A server that was stopped or killed starts again on the same ports.

        Raises:
            ConfigError: Somebody else has taken a port.
            ServerUnavailable: The server ended or was not ready in time; the message holds the end of its
                log.
        """
        if self.pid is not None:
            return self
        self.kill()
        for port in (self._http_port, self._grpc_port, *([self._metrics_port] if self._metrics else [])):
            _bind(self._host, port).close()
        self._folder = Path(tempfile.mkdtemp(prefix=f"dcp-triton-{os.getpid()}-"))
        try:
            self._install.link_backends(self._folder / "backends")
            self._process = self._spawn(self._folder)
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End the server. Requests in flight get a few seconds to complete. Safe to repeat."""
        try:
            if self._process:
                self._process.terminate(_EXIT_TIMEOUT_S + 5)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash would, and remove what it leaves. Safe to repeat."""
        if self._process:
            self._process.kill()
            self._process = None
        for segment in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            segment.unlink(missing_ok=True)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def wait(self) -> int:
        """Wait until the server ends; return its exit status, negative for the signal that ended it.

        Raises:
            ServerUnavailable: It was not started.
        """
        if self._process is None:
            raise ServerUnavailable("expected a running tritonserver, got none. Call start() first.")
        return self._process.wait()

    @property
    def _reach(self) -> str:
        return "127.0.0.1" if self._host == "0.0.0.0" else self._host

    def _spawn(self, folder: Path) -> ProcessGroup:
        with contextlib.ExitStack() as stack:
            path = self._log_file(folder)
            output = stack.enter_context(path.open("wb")) if path else self._log
            assert output is not None and not isinstance(output, str | Path)
            return ProcessGroup(
                [str(self._install.binary), *self._flags(folder)],
                environment=self._install.environment(os.environ),
                output=output,
            )

    def _flags(self, folder: Path) -> list[str]:
        flags = [
            f"--model-repository={self._reached_through(folder)}",
            f"--backend-directory={folder / 'backends'}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
            "--model-config-name=embedded",
            "--disable-auto-complete-config",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self._models),
            f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
            "--pinned-memory-pool-byte-size=0",
            f"--http-address={self._host}",
            f"--http-port={self._http_port}",
            f"--grpc-address={self._host}",
            f"--grpc-port={self._grpc_port}",
            f"--allow-metrics={str(self._metrics).lower()}",
            f"--metrics-port={self._metrics_port}",
            "--log-format=ISO8601",
        ]
        # No request may turn tracing or a louder log on, or read this machine's shared memory: nobody knows this key.
        restrictions = [f"trace,logging,shared-memory:{KEY_HEADER}-closed={secrets.token_hex(16)}"]
        if self._key is not None:
            restrictions.append(f"inference:{KEY_HEADER}={self._key}")
        # What is loaded may be code, and a page in a browser on this machine may post to it: never without a key.
        restrictions.append(f"model-repository:{ADMIN_KEY_HEADER}={self._admin_key or secrets.token_hex(16)}")
        for restriction in restrictions:
            flags += [f"--grpc-restricted-protocol={restriction}", f"--http-restricted-api={restriction}"]
        return [*flags, *self._extra_flags]

    def _reached_through(self, folder: Path) -> Path:
        """Give the repository's path, or of one that Triton's Python backend would cut in pieces a link to it."""
        if _PLAIN_PATH.fullmatch(str(self._repository)):
            return self._repository
        link = folder / "models"
        link.symlink_to(self._repository.absolute())
        return link

    def _wait_until_ready(self, process: ProcessGroup) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        # Over HTTP, which Triton opens after gRPC (whose channels pause for a second after a failed attempt),
        # then the metrics, which it opens last.
        waiting = [(f"model {model!r}", self._http_port, f"/v2/models/{model}/ready") for model in self._models]
        if self._metrics:
            waiting.append(("metrics", self._metrics_port, "/metrics"))
        while waiting:
            what, port, path = waiting[0]
            if process.ended:
                raise ServerUnavailable(f"tritonserver ended with status {process.wait()}. {self._log_tail()}")
            if time.monotonic() > deadline:
                limit = f"within {self._ready_timeout_s:g} s"
                raise ServerUnavailable(f"expected {what} ready {limit}. {self._log_tail()}")
            if self._is_ready(port, path):
                waiting.pop(0)
            else:
                time.sleep(_POLL_S)

    def _is_ready(self, port: int, path: str) -> bool:
        connection = http.client.HTTPConnection(self._reach, port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _log_file(self, folder: Path) -> Path | None:
        """Return the file of the log; None if the caller gave a stream."""
        if self._log is None:
            return folder / "triton.log"
        return Path(self._log) if isinstance(self._log, str | Path) else None

    def _log_tail(self) -> str:
        path = self._log_file(self._folder) if self._folder else None
        if path is None or not path.is_file():
            return "Read its log."
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if _ERROR_LINE.search(line)]
        return "Its log says:\n" + "\n".join(errors[:8] or lines[-8:])


def _choose_ports(host: str, *wanted: int | None) -> list[int]:
    """Return ``wanted``, with a free port of the operating system's choice in place of each None."""
    with contextlib.ExitStack() as stack:  # all are open at the same time, so no port comes twice
        sockets = [stack.enter_context(_bind(host, port)) for port in wanted]
        return [sock.getsockname()[1] for sock in sockets]


def _bind(host: str, port: int | None) -> socket.socket:
    try:
        return socket.create_server((host, port or 0))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"expected {host}:{port or 'any port'} to be free for tritonserver, got: {error}. "
            "Give another port, or none to take a free one."
        ) from error
