"""The deadline holds against whatever the other side does, and no request is ever sent twice."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from dcp_sdk import ServerRejected, ServerUnavailable
from dcp_sdk.deadline import Deadline
from dcp_sdk.transport.http_pool import ConnectionPool
from dcp_sdk.transport.triton_http import HttpTransport
from tests.sdk.conftest import Behaviour, Listen
from tests.tiny import Tiny

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def drips_its_headers(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not stop.wait(0.02):
        connection.sendall(b"x")


def drips_its_body(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not stop.wait(0.02):
        connection.sendall(b"x")


def never_reads(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait()


def floods(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not stop.is_set():
        connection.sendall(bytes(1 << 16))


class Polite:
    """Answers every request, and counts connections and requests."""

    def __init__(self, *, requests_per_connection: int | None = None) -> None:
        self.connections = self.requests = 0
        self._limit = requests_per_connection

    def __call__(self, connection: socket.socket, stop: threading.Event) -> None:
        self.connections += 1
        served = 0
        while connection.recv(1 << 16):
            self.requests += 1
            served += 1
            connection.sendall(OK)
            if served == self._limit:
                return


def get(pool: ConnectionPool, timeout_s: float = 10, body: bytes | None = None) -> bytes:
    with pool.lend(Deadline(timeout_s)) as connection:
        return connection.exchange("POST", "/", headers={}, body=body).body


@pytest.mark.parametrize("reply", [OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), OK.replace(b"1.1", b"1.0")])
def test_a_server_that_closes_after_each_answer_is_found_out(reply: bytes, listen: Listen, tiny: Tiny) -> None:
    """The head is compared over the very connection that the payload takes, so there must be one."""

    def closes(connection: socket.socket, stop: threading.Event) -> None:
        assert connection.recv(1 << 16)
        connection.sendall(reply)

    target = f"127.0.0.1:{listen(closes)}"
    pool = ConnectionPool(target)
    with pytest.raises(ConnectionError, match="keep it alive"), pool.lend(Deadline(10)) as connection:
        for _ in range(2):
            assert connection.exchange("GET", "/", headers={}).body == b"hi"
    pool.close()
    transport = HttpTransport(target)
    with pytest.raises(ServerUnavailable, match="keep it alive"):
        transport.connect(tiny.manifest.contract, 10)
    transport.close()


@pytest.mark.parametrize("behaviour", [drips_its_headers, drips_its_body, never_reads])
def test_deadline(behaviour: Behaviour, listen: Listen) -> None:
    pool = ConnectionPool(f"127.0.0.1:{listen(behaviour)}")
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        get(pool, 0.4, body=bytes(64 << 20))
    assert 0.3 < time.monotonic() - start < 10
    pool.close()


def test_flood_is_cut_off(listen: Listen) -> None:
    pool = ConnectionPool(f"127.0.0.1:{listen(floods)}", largest_body_bytes=1 << 18)
    with pytest.raises(http.client.HTTPException, match="more than"):
        get(pool)
    pool.close()


def test_an_answer_that_breaks_off_is_a_broken_connection(listen: Listen) -> None:
    def breaks_off(connection: socket.socket, stop: threading.Event) -> None:
        assert connection.recv(1 << 16)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123")

    pool = ConnectionPool(f"127.0.0.1:{listen(breaks_off)}")
    with pytest.raises(ConnectionError, match="7 bytes before the answer did"):
        get(pool)
    pool.close()


def test_connection_is_kept(listen: Listen) -> None:
    server = Polite()
    pool = ConnectionPool(f"127.0.0.1:{listen(server)}")
    assert [get(pool) for _ in range(5)] == [b"hi"] * 5
    assert (server.connections, server.requests) == (1, 5)
    pool.close()


def test_connection_that_the_server_closed_is_replaced_before_sending(listen: Listen) -> None:
    server = Polite(requests_per_connection=1)
    pool = ConnectionPool(f"127.0.0.1:{listen(server)}")
    for _ in range(3):
        assert get(pool) == b"hi"
        time.sleep(0.1)  # the end of the connection has arrived
    assert (server.connections, server.requests) == (3, 3)
    pool.close()


def test_a_timeout_ends_all_connections_that_are_idle(listen: Listen) -> None:
    """A router that forgot one has forgotten all of them; a new one is well."""
    lost = threading.Event()

    def answers_until_it_is_lost(connection: socket.socket, stop: threading.Event) -> None:
        new = lost.is_set()
        while connection.recv(1 << 16) and (new or not lost.is_set()):
            connection.sendall(OK)
        stop.wait()

    pool = ConnectionPool(f"127.0.0.1:{listen(answers_until_it_is_lost)}")
    with ExitStack() as lent:
        for connection in [lent.enter_context(pool.lend(Deadline(10))) for _ in range(3)]:
            assert connection.exchange("POST", "/", headers={}).body == b"hi"
    lost.set()
    with pytest.raises(TimeoutError):
        get(pool, 0.2)
    assert get(pool) == b"hi"
    pool.close()


def test_request_that_broke_is_not_sent_again(listen: Listen) -> None:
    requests: list[bytes] = []

    def reads_and_hangs_up(connection: socket.socket, stop: threading.Event) -> None:
        requests.append(connection.recv(1 << 16))

    pool = ConnectionPool(f"127.0.0.1:{listen(reads_and_hangs_up)}")
    with pytest.raises(ConnectionError):
        get(pool)
    time.sleep(0.1)
    assert len(requests) == 1
    pool.close()


def test_connections_grow_with_the_threads_and_close_with_the_pool(listen: Listen) -> None:
    server = Polite()
    pool = ConnectionPool(f"127.0.0.1:{listen(server)}")
    together = threading.Barrier(4)

    def work() -> None:
        together.wait()
        for _ in range(10):
            get(pool)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= server.connections <= 4
    assert server.requests == 40
    pool.close()
    with pytest.raises(ConnectionError, match="closed"):
        get(pool)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70], ids=["unknown", "label too long"])
def test_host_that_does_not_resolve(host: str) -> None:
    pool = ConnectionPool(f"{host}:8000")
    with pytest.raises(OSError, match=r"cannot resolve|deadline|^$"):
        get(pool, 5)


def test_an_address_that_is_silent_leaves_time_for_the_next(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    port = listen(Polite())
    with ExitStack() as opened:
        silent = opened.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(3):  # its queue is full then, and it takes no other
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (silent.getsockname(), ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        pool = ConnectionPool("two-addresses.example.org:8000")
        start = time.monotonic()
        assert get(pool, 1) == b"hi"
        assert time.monotonic() - start == pytest.approx(0.5, abs=0.3)
        pool.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6() -> None:
    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(OK)

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        pool = ConnectionPool(f"[::1]:{server.getsockname()[1]}")
        assert get(pool) == b"hi"
        pool.close()
        thread.join()


def has_no_such_page(connection: socket.socket, stop: threading.Event) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nNot Found")


def test_a_web_server_is_no_triton_that_lacks_the_model(listen: Listen, tiny: Tiny) -> None:
    transport = HttpTransport(f"127.0.0.1:{listen(has_no_such_page)}")
    with pytest.raises(ServerRejected, match=r"HTTP 404 in words that are not Triton's.*Check that a Triton listens"):
        transport.connect(tiny.manifest.contract, 1.0)
    transport.close()
