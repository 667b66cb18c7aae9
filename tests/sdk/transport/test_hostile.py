"""A server that answers nonsense gives a typed error, and memory and time stay bounded."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dcp_sdk import (
    AccessDenied,
    PrivateClient,
    Retries,
    ServerAddress,
    ServerError,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    Timeouts,
)
from dcp_sdk.preprocess import Image
from dcp_sdk.transport import open_transport
from tests import tiny as graph
from tests.sdk.transport import hostile
from tests.sdk.transport.hostile import Answer
from tests.tiny import Tiny

LIES: dict[str, Callable[[Answer], Answer]] = {
    "another name": lambda a: dataclasses.replace(a, name="logits"),
    "another type": lambda a: dataclasses.replace(a, datatype="FP64", data=np.full(2, 0.5).tobytes()),
    "unknown type": lambda a: dataclasses.replace(a, datatype="FP12"),
    "text": lambda a: dataclasses.replace(a, datatype="BYTES", data=b"\x04\0\0\0text"),
    "no bytes": lambda a: dataclasses.replace(a, data=b""),
    "too few bytes": lambda a: dataclasses.replace(a, data=a.data[:-1]),
    "too many bytes": lambda a: dataclasses.replace(a, data=a.data * 2),
    "shape that is none": lambda a: dataclasses.replace(a, shape=(-1, -1)),
    "shape beyond memory": lambda a: dataclasses.replace(a, shape=(1 << 40, 1 << 40)),
    "more axes than arrays have": lambda a: dataclasses.replace(a, shape=(1,) * 100, data=a.data[:4]),
    "an axis beyond all numbers": lambda a: dataclasses.replace(a, shape=(0, 1 << 62), data=b""),
    "no batch": lambda a: dataclasses.replace(a, shape=(2,)),
    "two pictures": lambda a: dataclasses.replace(a, shape=(2, 2), data=a.data * 2),
    "not a number": lambda a: dataclasses.replace(a, data=np.full(2, np.nan, "<f4").tobytes()),
    "sum of 2": lambda a: dataclasses.replace(a, data=np.ones(2, "<f4").tobytes()),
}


@pytest.mark.parametrize("scheme", hostile.SERVERS)
def test_the_honest_answer_passes(scheme: str, tiny: Tiny, picture: Image) -> None:
    contract = tiny.manifest.contract
    with hostile.SERVERS[scheme](contract, hostile.true_answer(contract)) as address:
        with PrivateClient(tiny.bundle, address, device="cpu") as client:
            assert client.predict(picture).probabilities == {"no": 0.5, "yes": 0.5}


@pytest.mark.parametrize("scheme", hostile.SERVERS)
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_lies_are_refused(lie: Callable[[Answer], Answer], scheme: str, tiny: Tiny, picture: Image) -> None:
    contract = tiny.manifest.contract
    with hostile.SERVERS[scheme](contract, lie(hostile.true_answer(contract))) as address:
        with PrivateClient(tiny.bundle, address, device="cpu") as client:
            with pytest.raises(ServerRejected, match="expected"):
                client.predict(picture)


PASSING = [
    ("UNAVAILABLE", 503, "Exceeds maximum queue size"),
    ("UNAVAILABLE", 503, "Socket closed"),
    ("UNAVAILABLE", 503, "DNS resolution failed for triton.restricted.example:8001"),
]
GATEWAYS = [("UNAVAILABLE", code, "the server behind this gateway is away") for code in (429, 502, 504)]
LASTING = [
    ("UNAVAILABLE", 403, "This protocol is restricted, expecting header 'triton-grpc-protocol-dcp-key'", AccessDenied),
    ("UNAUTHENTICATED", 401, "who are you? you said a-secret-of-ours", AccessDenied),
    ("INVALID_ARGUMENT", 400, "unexpected shape", ServerRejected),
    ("INTERNAL", 500, "an exception in the \x1b[2Jmodel\n\x07", ServerRejected),
]


@pytest.mark.parametrize("scheme", hostile.SERVERS)
@pytest.mark.parametrize(("status", "code", "words"), PASSING + GATEWAYS)
def test_what_may_pass_is_tried_again(
    status: str, code: int, words: str, scheme: str, tiny: Tiny, picture: Image
) -> None:
    refusal = hostile.Refusal(status, code, words, times=2)
    with hostile.SERVERS[scheme](tiny.manifest.contract, refusal) as address:
        with PrivateClient(tiny.bundle, address, device="cpu", timeouts=Timeouts(predict_s=10)) as client:
            assert client.predict(picture).sends == 3
        refusal.asked = 0
        with PrivateClient(tiny.bundle, address, device="cpu", retries=Retries.none()) as client:
            with pytest.raises(ServerUnavailable, match="expected"):
                client.predict(picture)


@pytest.mark.parametrize("scheme", hostile.SERVERS)
@pytest.mark.parametrize(("status", "code", "words", "error"), LASTING)
def test_what_lasts_is_said_once(
    status: str, code: int, words: str, error: type[ServerError], scheme: str, tiny: Tiny, picture: Image
) -> None:
    refusal = hostile.Refusal(status, code, words)
    headers = {"x-key": "a-secret-of-ours"}
    with hostile.SERVERS[scheme](tiny.manifest.contract, refusal) as address:
        with PrivateClient(tiny.bundle, address, device="cpu", headers=headers) as client:
            for count in range(1, 8):  # beyond what opens the circuit
                with pytest.raises(error) as caught:
                    client.predict(picture)
                assert type(caught.value) is error
                assert refusal.asked == count
                assert "a-secret-of-ours" not in str(caught.value), "not even where the server repeats it"
                assert str(caught.value).isprintable(), "nothing that a terminal obeys"


@pytest.mark.parametrize("status", ["OK", "UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
def test_a_connection_that_is_gone_may_come_back_whatever_its_end_is_called(
    status: str, tiny: Tiny, picture: Image
) -> None:
    contract = tiny.manifest.contract
    with hostile.grpc_server(contract, hostile.true_answer(contract), stream_status=status) as address:
        with PrivateClient(tiny.bundle, address, device="cpu") as client:
            assert client.predict(picture).sends == 2


@pytest.mark.parametrize("scheme", hostile.SERVERS)
def test_a_call_under_way_outlives_the_timeout_of_another(scheme: str, tiny: Tiny) -> None:
    """After it a new connection is made; the old one stays until the call has its answer."""
    waits_s = [1.0, 1.0, 0.0]

    class Slow(hostile.Refusal):
        def is_over(self, key: str | None) -> bool:
            time.sleep(waits_s.pop(0))
            return True

    contract, payload = tiny.manifest.contract, tuple(graph.payload(1).values())
    slow = Slow("", 0, "")
    with hostile.SERVERS[scheme](contract, slow) as address, ThreadPoolExecutor(1) as pool:
        transport = open_transport(ServerAddress.parse(address))
        transport.connect(contract, 5)
        under_way = pool.submit(transport.infer, payload, 5)
        while len(waits_s) == 3:
            time.sleep(0.01)
        with pytest.raises(ServerTimeout):
            transport.infer(payload, 0.2)
        assert transport.infer(payload, 5).shape == (1, 2)
        assert not under_way.done()
        assert under_way.result().shape == (1, 2)
        transport.close()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", ServerRejected),
        (b"not JSON", ServerRejected),
        (b"{}", ServerRejected),
        (b'{"outputs": 3}', ServerRejected),
        (b"\xff" * 100, ServerRejected),
        (b"0" * (1 << 20) + b"0", ServerRejected),
    ],
    ids=["empty", "text", "empty JSON", "other JSON", "no UTF-8", "endless"],
)
def test_http_bodies_that_are_no_answer(body: bytes, error: type[ServerError], tiny: Tiny, picture: Image) -> None:
    with hostile.http_server(tiny.manifest.contract, body) as address:
        with PrivateClient(tiny.bundle, address, device="cpu") as client:
            with pytest.raises(error, match="expected"):
                client.predict(picture)
            assert client.stats().sends == 1, "nonsense is not asked for again"


def test_grpc_message_beyond_the_limit(tiny: Tiny, picture: Image) -> None:
    contract = tiny.manifest.contract
    answer = dataclasses.replace(hostile.true_answer(contract), data=bytes(2 << 20))
    with hostile.grpc_server(contract, answer) as address:
        with PrivateClient(tiny.bundle, address, timeouts=Timeouts(predict_s=10)) as client:
            start = time.monotonic()
            with pytest.raises(ServerRejected, match="RESOURCE_EXHAUSTED"):
                client.predict(picture)
            assert time.monotonic() - start < 20
