"""TLS before a server that does not speak it, as a reverse proxy does: Triton's HTTP has none."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from dcp_sdk.serving import TritonServer
from tests.e2e.authority import Identity
from tests.e2e.tap import port_of
from tests.tiny import ROOT, Tiny


class _Inside(ssl.SSLSocket):
    """Closes itself: CPython forgets to where a device resets the connection just before the handshake."""

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def tls_proxy(target: int, identity: Identity, *, clients: Path | None = None) -> Iterator[int]:
    """Take TLS connections and pass what is inside to port ``target``; gives the port.

    Args:
        target: Port on this machine.
        identity: The proxy's.
        clients: Authority that must vouch for those who connect; None takes everybody.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = _Inside
    context.load_cert_chain(identity.certificate, identity.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        threads.append(thread)
        thread.start()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                sockets.append(plain)
                start(serve, plain)

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            plain.settimeout(10)
            with context.wrap_socket(plain, server_side=True) as device:
                sockets.append(device)
                with socket.create_connection(("127.0.0.1", target)) as server:
                    sockets.append(server)
                    forward(device, server)

    def forward(device: ssl.SSLSocket, server: socket.socket) -> None:
        # One thread for both directions: OpenSSL forbids to read a connection while another thread writes to it.
        while True:
            ready = [device] if device.pending() else select.select([device, server], [], [])[0]
            for source, sink in ((device, server), (server, device)):
                if source in ready:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    sink.sendall(data)

    start(accept)
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in [listener, *sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # ends who waits for it; a number that is closed could be anybody's
        for thread in threads:
            thread.join(12)
        for sock in [listener, *sockets]:
            sock.close()


@contextlib.contextmanager
def tls_server(
    scheme: str, tiny: Tiny, http_port: int, identity: Identity, *, clients: Path | None = None
) -> Iterator[int]:
    """Serve ``tiny`` with a certificate; gives the port.

    Args:
        scheme: ``grpcs`` starts a Triton of its own, ``https`` a proxy before the one at ``http_port``.
        tiny: What is served.
        http_port: Of a Triton that serves it.
        identity: The server's.
        clients: Authority that must vouch for those who connect; None takes everybody.
    """
    if scheme == "https":
        with tls_proxy(http_port, identity, clients=clients) as port:
            yield port
        return
    flags = [f"--grpc-server-cert={identity.certificate}", f"--grpc-server-key={identity.key}", "--grpc-use-ssl=true"]
    if clients is not None:
        flags += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={clients}"]
    with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", extra_flags=flags) as server:
        yield port_of(server, "grpc")
