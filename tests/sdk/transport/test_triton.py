"""Each way in which a server fails, over both protocols: the right error, in time, and no retry."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from dcp_sdk import (
    AccessDenied,
    ConfigError,
    Contract,
    ContractMismatch,
    PrivateClient,
    ServerAddress,
    ServerError,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    Timeouts,
)
from dcp_sdk.preprocess import Image
from dcp_sdk.serving import KEY_HEADER, TritonServer
from dcp_sdk.transport import Transport, open_transport
from tests import tiny as graph
from tests.sdk.conftest import Behaviour, Listen
from tests.sdk.helpers import address_of
from tests.tiny import ROOT, Tiny

pytestmark = pytest.mark.parametrize("scheme", ["grpc", "http"])

PAYLOAD = tuple(graph.payload(2).values())


def transport_to(address: str, **options: dict[str, str]) -> Transport:
    return open_transport(ServerAddress.parse(address), **options)


def never_answers(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait()


def talks_nonsense(connection: socket.socket, stop: threading.Event) -> None:
    connection.recv(4096)
    connection.sendall(b"220 smtp.example.org ready\r\n" * 10)


def hangs_up(connection: socket.socket, stop: threading.Event) -> None:
    connection.recv(4096)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (never_answers, ServerTimeout),
        (talks_nonsense, ServerUnavailable),
        (hangs_up, ServerUnavailable),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_server_that_is_no_triton(
    behaviour: Behaviour, error: type[ServerError], scheme: str, listen: Listen, tiny: Tiny
) -> None:
    transport = transport_to(f"{scheme}://127.0.0.1:{listen(behaviour)}")
    start = time.monotonic()
    with pytest.raises(error, match=rf"expected .* {scheme}://127\.0\.0\.1"):
        transport.connect(tiny.manifest.contract, 1.0)
    assert time.monotonic() - start < 10
    transport.close()


def test_nobody_listens(scheme: str, closed_port: int, tiny: Tiny) -> None:
    with pytest.raises(ServerUnavailable, match="dcp serve"):
        PrivateClient(tiny.bundle, f"{scheme}://127.0.0.1:{closed_port}")


def test_host_that_does_not_exist(scheme: str, tiny: Tiny) -> None:
    with pytest.raises((ServerUnavailable, ServerTimeout)):
        PrivateClient(tiny.bundle, f"{scheme}://no-such-host.invalid:8001", timeouts=Timeouts(connect_s=5))


def test_transport_before_connect_and_after_close(scheme: str, tiny: Tiny) -> None:
    transport = transport_to(f"{scheme}://127.0.0.1:9")
    with pytest.raises(ConfigError, match="not connected"):
        transport.infer(PAYLOAD, 1)
    transport.close()
    transport.close()
    with pytest.raises(ServerUnavailable, match="closed"):
        transport.connect(tiny.manifest.contract, 1)


@pytest.mark.parametrize("headers", [{"a b": "1"}, {"": "1"}, {"k": "a\nb"}, {"k": "é"}, {"k-bin": "1"}], ids=str)
def test_headers_that_cannot_be_sent(headers: dict[str, str], scheme: str) -> None:
    with pytest.raises(ConfigError, match="headers"):
        transport_to(f"{scheme}://127.0.0.1:9", headers=headers)


@pytest.mark.triton
class TestWithTriton:
    @pytest.fixture
    def server(self, tiny: Tiny) -> Iterator[TritonServer]:
        """Start a server of the test's own, to be stopped and killed."""
        with TritonServer(tiny.repository, venv=ROOT / ".venv-triton") as server:
            yield server

    def test_answers(self, scheme: str, tiny_server: TritonServer, tiny: Tiny, picture: Image) -> None:
        with PrivateClient(tiny.bundle, f"memory://{tiny.repository}") as client:
            expected = client.predict(picture)
        with PrivateClient(tiny.bundle, address_of(tiny_server, scheme)) as client:
            prediction = client.predict(picture)
            assert len(client.predict_batch([picture] * 20)) == 20
        assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
        assert prediction.server == address_of(tiny_server, scheme)

    def test_many_threads(self, scheme: str, tiny_server: TritonServer, tiny: Tiny) -> None:
        transport = transport_to(address_of(tiny_server, scheme))
        transport.connect(tiny.manifest.contract, 10)
        payloads = [tuple(graph.payload(2, seed=seed).values()) for seed in range(6)]
        expected = [transport.infer(payload, 10) for payload in payloads]
        wrong: list[int] = []

        def work(index: int) -> None:
            for _ in range(20):
                if not np.allclose(transport.infer(payloads[index], 10), expected[index], atol=1e-6):
                    wrong.append(index)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        transport.close()
        assert wrong == []

    def test_port_of_the_other_protocol(self, scheme: str, tiny_server: TritonServer, tiny: Tiny) -> None:
        wrong = address_of(tiny_server, "http" if scheme == "grpc" else "grpc").split("://")[1]
        with pytest.raises((ServerUnavailable, ServerTimeout), match="expected"):
            PrivateClient(tiny.bundle, f"{scheme}://{wrong}", timeouts=Timeouts(connect_s=2))

    @pytest.mark.parametrize("change", [{"model": "absent"}, {"version": 7}], ids=str)
    def test_model_that_is_not_loaded(
        self, change: dict[str, object], scheme: str, tiny_server: TritonServer, tiny: Tiny
    ) -> None:
        contract = tiny.manifest.contract
        absent = contract.model_copy(update={"head": contract.head.model_copy(update=change)})
        with pytest.raises(ServerUnavailable, match=r"expected the model '(absent|task_head)' version [17] ready"):
            connect(address_of(tiny_server, scheme), absent)

    def test_head_of_another_bundle(self, scheme: str, tiny_server: TritonServer, other: Tiny, picture: Image) -> None:
        with pytest.raises(ContractMismatch, match="digest"):
            PrivateClient(other.bundle, address_of(tiny_server, scheme))

    def test_request_that_triton_refuses(self, scheme: str, tiny_server: TritonServer, tiny: Tiny) -> None:
        transport = transport_to(address_of(tiny_server, scheme))
        transport.connect(tiny.manifest.contract, 10)
        unknown_channel = np.full_like(PAYLOAD[0], graph.CHANNELS)
        too_many = tuple(np.repeat(tensor, 5, axis=0) for tensor in PAYLOAD)
        for bad in ((unknown_channel, PAYLOAD[1]), too_many, (PAYLOAD[0][:1], PAYLOAD[1])):
            with pytest.raises(ServerRejected, match="refused"):
                transport.infer(bad, 10)
        assert transport.infer(PAYLOAD, 10).shape == (2, 2), "a refusal must not spoil the connection"
        transport.close()

    def test_frozen_then_awake_again(self, scheme: str, server: TritonServer, tiny: Tiny) -> None:
        transport = transport_to(address_of(server, scheme))
        transport.connect(tiny.manifest.contract, 10)
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(ServerTimeout, match=r"within 0\.5 s"):
            transport.infer(PAYLOAD, 0.5)
        assert time.monotonic() - start < 5
        os.killpg(server.pid, signal.SIGCONT)
        assert transport.infer(PAYLOAD, 10).shape == (2, 2)
        transport.close()

    def test_killed_during_a_call_and_started_again(self, scheme: str, server: TritonServer, tiny: Tiny) -> None:
        transport = transport_to(address_of(server, scheme))
        transport.connect(tiny.manifest.contract, 10)
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGSTOP)
        killer = threading.Timer(0.5, server.kill)
        killer.start()
        start = time.monotonic()
        with pytest.raises(ServerUnavailable):
            transport.infer(PAYLOAD, 30)
        assert time.monotonic() - start < 20
        killer.join()
        with pytest.raises(ServerUnavailable):
            transport.infer(PAYLOAD, 2)
        server.start()
        time.sleep(0.5)  # longer than gRPC waits before it connects anew
        assert transport.infer(PAYLOAD, 10).shape == (2, 2)
        transport.close()

    def test_closed_during_a_call(self, scheme: str, server: TritonServer, tiny: Tiny) -> None:
        transport = transport_to(address_of(server, scheme))
        transport.connect(tiny.manifest.contract, 10)
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGSTOP)
        closer = threading.Timer(0.3, transport.close)
        closer.start()
        with pytest.raises((ServerUnavailable, ServerTimeout)):
            transport.infer(PAYLOAD, 2)
        closer.join()
        os.killpg(server.pid, signal.SIGCONT)

    def test_restricted_endpoint_wants_its_key(self, scheme: str, tiny: Tiny, picture: Image) -> None:
        name = f"triton-grpc-protocol-{KEY_HEADER}" if scheme == "grpc" else KEY_HEADER
        with TritonServer(tiny.repository, venv=ROOT / ".venv-triton", key="secret") as server:
            address = address_of(server, scheme)
            for headers in (None, {name: "guess"}):
                with pytest.raises(AccessDenied, match="wants a key") as caught:
                    with PrivateClient(tiny.bundle, address, headers=headers) as client:
                        client.predict(picture)
                assert "guess" not in str(caught.value)
            with PrivateClient(tiny.bundle, address, headers={name: "secret"}) as client:
                assert client.predict(picture).label in graph.LABELS


def connect(address: str, contract: Contract) -> None:
    transport = transport_to(address)
    try:
        transport.connect(contract, 5)
    finally:
        transport.close()
