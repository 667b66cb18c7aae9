from __future__ import annotations

import gc
import os
import threading
from contextlib import closing
from typing import Any

import grpc._channel
import pytest
from tritonclient.grpc import service_pb2

from dcp_sdk import PrivateClient, Retries, ServerTimeout, Timeouts
from dcp_sdk.bench import Bare
from dcp_sdk.deadline import Deadline
from dcp_sdk.preprocess import Image, preprocess
from dcp_sdk.transport.grpc_link import GrpcLink, LinkClosed
from dcp_sdk.transport.triton_grpc import GrpcTransport
from tests.sdk.helpers import eventually
from tests.sdk.transport import hostile
from tests.tiny import Tiny


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy", "GRPC_ADDRESS_HTTP_PROXY"])
def test_no_proxy_of_the_environment_gets_a_payload(
    variable: str, closed_port: int, tiny: Tiny, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default gRPC asks a port at which nobody listens for the way to a server that is right here."""
    for name in [name for name in os.environ if "proxy" in name.lower()]:
        monkeypatch.delenv(name)
    proxy = f"127.0.0.1:{closed_port}"
    monkeypatch.setenv(variable, proxy if variable.startswith("GRPC") else f"http://{proxy}")
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.1")
    contract = tiny.manifest.contract
    with hostile.grpc_server(contract, hostile.true_answer(contract)) as address:
        with PrivateClient(tiny.bundle, address, device="cpu") as client:
            assert client.predict(picture).label
            with closing(Bare(client)) as bare:  # what ``dcp bench`` compares with sends a payload, too
                assert bare(preprocess(picture, contract.preprocessing)).shape == (1, *contract.answer.shape)


def test_a_late_request_is_left_to_its_end(tiny: Tiny, picture: Image) -> None:
    """Cancelled, by the device or by a deadline that the server knows, it may crash Triton before 25.04."""
    contract = tiny.manifest.contract
    late, looked = threading.Event(), threading.Event()
    cancelled: list[bool] = []

    def wait(context: Any) -> None:
        if not late.is_set():
            assert late.wait(10)
            cancelled.append(not context.is_active())
            looked.set()

    timeouts = Timeouts(connect_s=5, predict_s=0.3)
    with hostile.grpc_server(contract, hostile.true_answer(contract), before=wait) as address:
        with PrivateClient(tiny.bundle, address, device="cpu", timeouts=timeouts, retries=Retries.none()) as client:
            with pytest.raises(ServerTimeout):
                client.predict(picture)
            gc.collect()  # nobody holds the error, and what it holds
            late.set()
            assert client.predict(picture).label, "over a new connection, which closes the old one"
            assert looked.wait(10)
    assert cancelled == [False]


def test_a_link_that_was_closed_sends_nothing(tiny: Tiny) -> None:
    """A payload that nobody waits for must not leave, and is not cancelled under way."""
    came: list[Any] = []
    contract = tiny.manifest.contract
    request = service_pb2.ModelInferRequest(model_name=contract.head.model)
    with hostile.grpc_server(contract, hostile.true_answer(contract), before=came.append) as address:
        link = GrpcLink(address.removeprefix("grpc://"), credentials=None, options=[], metadata={})
        assert link.call("ModelInfer", request, Deadline(10))
        link.close()
        with pytest.raises(LinkClosed):
            link.call("ModelInfer", request, Deadline(10))
    assert len(came) == 1


def test_a_link_for_which_threads_run_out_leaves_none(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try to connect would leave two, so that a lack of threads never ended."""
    contract = tiny.manifest.contract

    def subscribe(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with hostile.grpc_server(contract, hostile.true_answer(contract)) as address:

        def is_a_clients(thread: threading.Thread) -> bool:
            return not thread.name.startswith("ThreadPoolExecutor")  # the server's

        before = set(threading.enumerate())
        with monkeypatch.context() as patch:
            patch.setattr(grpc._channel.Channel, "subscribe", subscribe)
            for _ in range(3):
                with pytest.raises(RuntimeError, match="new thread"):
                    GrpcLink(address.removeprefix("grpc://"), credentials=None, options=[], metadata={})
        assert eventually(
            lambda: not [thread for thread in set(threading.enumerate()) - before if is_a_clients(thread)]
        )


def test_a_call_goes_on_over_the_link_that_another_thread_has_made(
    tiny: Tiny, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = tiny.manifest.contract
    with hostile.grpc_server(contract, hostile.true_answer(contract)) as address:
        with PrivateClient(tiny.bundle, address, device="cpu", retries=Retries.none()) as client:
            transport = client._servers.first
            assert isinstance(transport, GrpcTransport)
            living = transport._living_link
            asked: list[GrpcLink] = []

            def closed_meanwhile(*about: Any) -> GrpcLink:
                asked.append(living(*about))
                if len(asked) == 1:
                    asked[0].close()
                return asked[-1]

            monkeypatch.setattr(transport, "_living_link", closed_meanwhile)
            assert client.predict(picture).sends == 1
            assert len(asked) == 2
