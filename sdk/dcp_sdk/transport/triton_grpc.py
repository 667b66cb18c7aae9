"""Triton over gRPC, with NVIDIA's protocol buffers. Every call has a deadline, no call is retried here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, Unpack

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from ..aside import Elsewhere
from ..contract import Contract
from ..deadline import Deadline
from ..errors import DCPError
from ..obfuscate import Payload
from ..security import Security
from .base import TRACE_HEADERS
from .grpc_link import GrpcLink, LinkClosed, LinkLost
from .pairing import ServedConfig, ServedModel, check_digest, check_pairing
from .tls import speaks_tls, why_no_tls
from .triton import ConnectionOptions, TritonTransport

__all__ = ["NO_PROXY", "GrpcTransport"]

NO_PROXY: list[tuple[str, int | str]] = [
    # $http_proxy and its like, set for other programs, would send the payload to a host that no option names.
    ("grpc.enable_http_proxy", 0),
    # The same for $GRPC_ADDRESS_HTTP_PROXY, which the line above does not switch off.
    ("grpc.address_http_proxy_enabled_addresses", ""),
]
"""Channel arguments."""
T = TypeVar("T")
_LARGEST_ANSWER_BYTES = 1 << 20
_FRAMING_BYTES = 1 << 16
_DIAGNOSIS_S = 1.0
_GRACE_S = 1.0
"""More than its deadline that a call, which ends by it, may need until this is known."""
_CLOSE_S = 5.0
_NEVER_TLS = ("refused", "DNS", "resolution", "unreachable", "No route", "not resolve")
"""Words of gRPC for a connection that failed before TLS could."""
_RESTRICTED = "This protocol is restricted, expecting header"
"""Triton's words for a missing key. One of them alone could stand in the name of a host that does not resolve."""


class GrpcTransport(TritonTransport):
    """One gRPC connection to a Triton server, shared by all threads.

    Args:
        target: ``host:port``.
        options: As :class:`TritonTransport` takes them; headers become gRPC metadata.

    Raises:
        ConfigError: As :class:`TritonTransport`.
    """

    scheme = "grpc"
    key_prefix = "triton-grpc-protocol-"

    def __init__(self, target: str, **options: Unpack[ConnectionOptions]) -> None:
        super().__init__(target, **options)
        self._elsewhere = Elsewhere("dcp grpc")
        self._linking = threading.Lock()
        self._link: GrpcLink | None = None
        self._closed = False

    def connect(self, contract: Contract, timeout_s: float) -> None:
        self._safely(partial(self._connect, contract, Deadline(timeout_s)), timeout_s)
        self._connected_contract = contract

    def reach(self, timeout_s: float) -> None:
        link = self._link
        if link is None or not link.trusted:
            self._safely(partial(self._living_link, self._contract, Deadline(timeout_s)), timeout_s)

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        return self._safely(partial(self._infer, self._contract, payload, Deadline(timeout_s)), timeout_s)

    def close(self) -> None:
        self._closed = True
        link = self._link
        if link is not None:
            with suppress(TimeoutError):
                self._elsewhere.do(link.close, _CLOSE_S)

    def _safely(self, work: Callable[[], T], timeout_s: float) -> T:
        """Do it where no signal is handled: gRPC takes its locks in Python."""
        try:
            return self._elsewhere.do(work, timeout_s + _GRACE_S)
        except DCPError:
            raise
        except TimeoutError as error:
            raise self._too_late(timeout_s) from error

    def _connect(self, contract: Contract, deadline: Deadline) -> None:
        with self._alone(deadline):
            self._replace(self._checked_link(contract, deadline, thorough=True))

    def _infer(self, contract: Contract, payload: Payload, deadline: Deadline) -> npt.NDArray[Any]:
        request = _request(contract, payload)
        while True:
            link = self._living_link(contract, deadline)
            with self._mapped_errors(link, contract, deadline):
                try:
                    return self._answer(contract, link.call("ModelInfer", request, deadline, TRACE_HEADERS.get()))
                except LinkClosed:  # by another thread, which has made a new one
                    if self._closed:
                        raise

    def _living_link(self, contract: Contract, deadline: Deadline) -> GrpcLink:
        """Give the checked connection; make and check a new one where it was lost or does not answer."""
        link = self._link
        if link is not None and link.trusted:
            return link
        with self._alone(deadline):
            if self._link is None or not self._link.trusted:
                self._replace(self._checked_link(contract, deadline, thorough=False))
            assert self._link is not None
            return self._link

    @contextmanager
    def _alone(self, deadline: Deadline) -> Iterator[None]:
        """Let one thread connect while the others wait for it, each until its own deadline."""
        if not self._linking.acquire(timeout=deadline.left_s()):
            raise self._too_late(deadline.timeout_s)
        try:
            yield
        finally:
            self._linking.release()

    def _checked_link(self, contract: Contract, deadline: Deadline, *, thorough: bool) -> GrpcLink:
        if self._closed:
            raise self._unreachable("the transport is closed")
        link = GrpcLink(
            self._target,
            credentials=self._read_certificates(self._credentials),
            options=_channel_args(contract),
            metadata=self._request_headers(),
        )
        try:
            with self._mapped_errors(link, contract, deadline):
                self._check(link, contract, deadline, thorough=thorough)
        except BaseException:
            link.close()
            raise
        return link

    def _check(self, link: GrpcLink, contract: Contract, deadline: Deadline, *, thorough: bool) -> None:
        """Ask about the head. The digest is enough where names and shapes were compared before."""
        about = {"name": contract.head.model, "version": str(contract.head.version)}
        if not thorough:
            config = _as_json(link.call("ModelConfig", service_pb2.ModelConfigRequest(**about), deadline))
            check_digest(contract, ServedConfig.read(config.get("config")), self.address)
            return
        if not link.call("ModelReady", service_pb2.ModelReadyRequest(**about), deadline).ready:
            raise self._not_ready(contract)
        metadata = _as_json(link.call("ModelMetadata", service_pb2.ModelMetadataRequest(**about), deadline))
        config = _as_json(link.call("ModelConfig", service_pb2.ModelConfigRequest(**about), deadline))
        check_pairing(contract, ServedModel.parse(metadata, config.get("config")), self.address)

    def _replace(self, link: GrpcLink) -> None:
        old, self._link = self._link, link
        if old is not None:
            old.retire()
        if self._closed:  # meanwhile, by another thread
            link.close()

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not self._secure:
            return None
        security = self._security or Security()
        certificate, key = security.identity() or (None, None)
        return grpc.ssl_channel_credentials(security.authorities(), key, certificate)

    def _answer(self, contract: Contract, response: Any) -> npt.NDArray[Any]:
        spec = contract.answer
        found = [index for index, output in enumerate(response.outputs) if output.name == spec.name]
        if not found or response.outputs[found[0]].datatype != spec.triton_type:
            raise self._nonsense(f"no {spec.dtype} tensor {spec.name!r}")
        if len(response.raw_output_contents) <= found[0]:
            raise self._nonsense("a tensor without its bytes")
        return self._tensor(spec.dtype, response.outputs[found[0]].shape, response.raw_output_contents[found[0]])

    @contextmanager
    def _mapped_errors(self, link: GrpcLink, contract: Contract, deadline: Deadline) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._too_late(deadline.timeout_s) from error
        except LinkLost as error:
            raise self._lost(link, error.code.name, error.details) from None
        except grpc.RpcError as error:  # its message is what the server said, a key of ours perhaps
            raise self._map(link, error.code().name, str(error.details()), contract, deadline) from None
        except ValueError as error:  # the link was closed by another thread
            raise self._unreachable("the connection is closed") from error

    def _lost(self, link: GrpcLink, status: str, details: str) -> Exception:
        """Whatever the end of the stream is called, the connection is gone; unless it wanted a key."""
        link.close()
        return self._needs_key(details) if _wants_key(status, details) else self._unreachable(details or status)

    def _map(self, link: GrpcLink, status: str, details: str, contract: Contract, deadline: Deadline) -> Exception:
        if status == "DEADLINE_EXCEEDED":
            # gRPC ends a call early where the device's clock is set just as it begins.
            return self._unreachable(details) if deadline.left_s() else self._too_late(deadline.timeout_s)
        if status == "NOT_FOUND":
            return self._not_ready(contract)
        # Triton says UNAVAILABLE for a missing key and a full queue, too.
        if _wants_key(status, details):
            link.close()  # its headers stay what they are: a key that is put right needs a new one
            return self._needs_key(details)
        if "exceeds maximum queue size" in details.lower():
            return self._full(details)
        # What breaks inside TLS or HTTP/2 has the names of a server's own errors.
        if status in {"UNAVAILABLE", "CANCELLED"} or (status in {"UNKNOWN", "INTERNAL"} and not link.alive):
            return self._gone(link, details, deadline)
        return self._refused(f"{status}, {details}")

    def _gone(self, link: GrpcLink, details: str, deadline: Deadline) -> Exception:
        """Look at what gRPC calls unavailable: it may be a certificate, or TLS on one side only."""
        link.close()  # it would go on trying to connect
        if link.was_ready or any(word in details for word in _NEVER_TLS):
            return self._unreachable(details)
        reason = self._why_not_secure(deadline)
        return self._unreachable(details, unwelcome=self._secure) if reason is None else self._insecure(reason)

    def _why_not_secure(self, deadline: Deadline) -> str | None:
        time_left = Deadline(min(deadline.left_s(), _DIAGNOSIS_S))
        if self._secure:
            return why_no_tls(self._host, self._port, self._security, time_left)
        if speaks_tls(self._host, self._port, time_left):
            return f"it speaks TLS. Use {self.scheme}s://{self._target}"
        return None


def _wants_key(status: str, details: str) -> bool:
    return status in {"UNAUTHENTICATED", "PERMISSION_DENIED"} or _RESTRICTED in details


def _channel_args(contract: Contract) -> list[tuple[str, int | str]]:
    return [
        *NO_PROXY,
        # A message that is larger than the contract allows cannot even be sent.
        (
            "grpc.max_send_message_length",
            contract.head.max_batch_size * contract.payload_bytes + _FRAMING_BYTES,
        ),
        ("grpc.max_receive_message_length", _LARGEST_ANSWER_BYTES),
        ("grpc.enable_retries", 0),
        # A link that was lost is made anew by us, at once; gRPC's own attempts would only come between.
        ("grpc.initial_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Otherwise all clients of the process share one connection, its failures and its back-off.
        ("grpc.use_local_subchannel_pool", 1),
        # Asks an idle connection whether it lives; a server hangs up on those who ask more often than in 5 minutes. The
        # timeout is also TCP's: after so long without a sign of what was sent, the connection ends.
        ("grpc.keepalive_time_ms", 600_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    ]


def _request(contract: Contract, payload: Payload) -> Any:
    request = service_pb2.ModelInferRequest(model_name=contract.head.model, model_version=str(contract.head.version))
    for spec, value in zip(contract.payload, payload, strict=True):
        request.inputs.add(name=spec.name, datatype=spec.triton_type, shape=value.shape)
        request.raw_input_contents.append(np.asarray(value, value.dtype.newbyteorder("<")).tobytes())
    request.outputs.add(name=contract.answer.name)
    return request


def _as_json(message: Any) -> dict[str, Any]:
    as_json: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return as_json
