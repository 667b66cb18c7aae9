"""Who is asked, how often, for how long: with transports that fail as they are told."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dcp_sdk import (
    AccessDenied,
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    Contract,
    ContractMismatch,
    DCPError,
    DeadlineExceeded,
    Retries,
    RuntimeUnavailable,
    ServerRejected,
    ServerTimeout,
    ServerUnavailable,
    TLSFailed,
    Transport,
)
from dcp_sdk.calls.server import Answer, Sends
from dcp_sdk.calls.servers import Servers
from dcp_sdk.deadline import Deadline
from dcp_sdk.obfuscate import Payload
from tests import tiny as graph
from tests.sdk.helpers import eventually
from tests.tiny import Tiny

PAYLOAD = tuple(graph.payload(1).values())
QUICK = Retries(attempts=3, first_wait_s=0.01, longest_wait_s=0.02)
NEVER = CircuitBreaker(failures=1000)


class Script(Transport):
    """Fails with each of ``failures`` in turn, then answers; ``waits_s`` seconds pass before."""

    def __init__(
        self, name: str, failures: Iterable[BaseException] = (), *, refuses: Exception | None = None, waits_s: float = 0
    ) -> None:
        self._name, self._failures, self._refuses, self.waits_s = name, list(failures), refuses, waits_s
        self.got: list[tuple[Payload, float]] = []
        self.connected = 0

    @property
    def address(self) -> str:
        return self._name

    def connect(self, contract: Contract, timeout_s: float) -> None:
        self.connected += 1
        if self._refuses is not None:
            raise self._refuses

    def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
        self.got.append((payload, timeout_s))
        if self.waits_s > timeout_s:
            time.sleep(timeout_s)
            raise ServerTimeout("slow")
        if self._failures:
            raise self._failures.pop(0)
        return np.float32([[0.5, 0.5]])

    def close(self) -> None:
        """Nothing is open."""


Ask = Callable[..., Answer]


@pytest.fixture
def ask(tiny: Tiny) -> Ask:
    """Ask servers once; those that were made for the same transports before keep what they learnt."""
    known: dict[tuple[int, ...], Servers] = {}

    def once(
        *scripts: Script, timeout_s: float = 2, retries: Retries = QUICK, breaker: CircuitBreaker = NEVER
    ) -> Answer:
        key = tuple(map(id, scripts))
        known.setdefault(key, Servers(scripts, tiny.manifest.contract, retries=retries, breaker=breaker))
        return known[key].infer(PAYLOAD, Deadline(timeout_s), Sends())

    return once


def test_what_passes_is_tried_again_with_the_very_same_arrays(ask: Ask) -> None:
    server = Script("a", [ServerUnavailable("reset"), ServerUnavailable("full")])
    assert ask(server).sends == 3
    assert all(payload is PAYLOAD for payload, _ in server.got)
    timeouts = [timeout_s for _, timeout_s in server.got]
    assert timeouts == sorted(timeouts, reverse=True), "one deadline for all"


@pytest.mark.parametrize(
    "failure",
    [AccessDenied("key"), TLSFailed("certificate"), ServerRejected("payload"), ContractMismatch("head")],
    ids=lambda failure: type(failure).__name__,
)
def test_what_does_not_pass_is_never_tried_again(failure: Exception, ask: Ask) -> None:
    server = Script("a", [failure])
    for _ in range(10):
        with pytest.raises(type(failure)):
            ask(server, breaker=CircuitBreaker(failures=1))
        server._failures.append(failure)
    assert len(server.got) == 10, "neither a retry nor an open circuit"


def test_a_deadline_does_not_start_anew(ask: Ask) -> None:
    server = Script("a", waits_s=9)
    start = time.monotonic()
    with pytest.raises(ServerTimeout):
        ask(server, timeout_s=0.3)
    assert len(server.got) == 1
    assert time.monotonic() - start < 2


def test_no_pause_goes_beyond_the_deadline(ask: Ask) -> None:
    server = Script("a", [ServerUnavailable("reset")] * 99)
    start = time.monotonic()
    with pytest.raises(ServerUnavailable):
        ask(server, timeout_s=0.3, retries=Retries(attempts=20, first_wait_s=9, longest_wait_s=9))
    assert time.monotonic() - start < 2


def test_retries_can_be_switched_off(ask: Ask) -> None:
    server = Script("a", [ServerUnavailable("reset")])
    with pytest.raises(ServerUnavailable):
        ask(server, retries=Retries.none())
    assert len(server.got) == 1


def test_the_next_server_is_asked_in_order(ask: Ask) -> None:
    first, second = Script("a", [ServerUnavailable("reset")]), Script("b")
    assert ask(first, second).address == "b"
    assert ask(first, second).address == "a", "back to the first"
    assert (first.connected, second.connected) == (1, 1), "each was checked once, before its first payload"


def test_a_slow_server_leaves_time_for_the_next(ask: Ask) -> None:
    first, second = Script("a", waits_s=9), Script("b")
    assert ask(first, second, timeout_s=0.6).address == "b"
    assert first.got[0][1] == pytest.approx(0.3, abs=0.1)


def test_a_server_that_is_not_paired_gets_no_payload(ask: Ask) -> None:
    stranger, second = Script("a", refuses=ContractMismatch("head")), Script("b")
    assert ask(stranger, second).address == "b"
    assert stranger.got == []
    with pytest.raises(ContractMismatch):
        ask(stranger)


def test_a_refused_payload_is_not_offered_elsewhere(ask: Ask) -> None:
    second = Script("b")
    with pytest.raises(ServerRejected):
        ask(Script("a", [ServerRejected("payload")]), second)
    assert second.got == []


@pytest.mark.parametrize(
    "failure",
    [AccessDenied("key"), TLSFailed("certificate"), ContractMismatch("head"), ServerTimeout("slow")],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("first", [True, False])
def test_only_those_that_may_recover_are_asked_again(first: bool, failure: DCPError, ask: Ask) -> None:
    """A refusal elsewhere neither costs a retry nor brings another payload to who refused."""
    failing, restarting = Script("a", [failure] * 9), Script("b", [ServerUnavailable("reset")] * 2)
    answer = ask(*(failing, restarting) if first else (restarting, failing))
    assert (answer.address, answer.sends) == ("b", 4)
    assert (len(failing.got), len(restarting.got)) == (1, 3)


def test_the_error_is_that_of_the_first(ask: Ask) -> None:
    down, refusing = Script("a", [ServerUnavailable("a is down")] * 9), Script("b", [AccessDenied("b wants a key")] * 9)
    with pytest.raises(ServerUnavailable, match="a is down"):
        ask(down, refusing)
    with pytest.raises(AccessDenied, match="b wants a key"):
        ask(refusing, down)
    assert (len(down.got), len(refusing.got)) == (6, 2)


def test_a_payload_that_is_refused_ends_the_call_in_a_later_round_too(ask: Ask) -> None:
    down, second = Script("a", [ServerUnavailable("reset")] * 9), Script("b", [ServerRejected("payload")] * 9)
    with pytest.raises(ServerRejected):
        ask(down, second)
    assert (len(down.got), len(second.got)) == (1, 1)


def test_a_server_that_nobody_asked_in_time_is_not_to_blame(ask: Ask) -> None:
    server = Script("a")
    for _ in range(9):
        with pytest.raises(DeadlineExceeded, match="Nothing was sent") as caught:
            ask(server, timeout_s=0, breaker=CircuitBreaker(failures=5))
        assert type(caught.value) is DeadlineExceeded
    assert (server.connected, server.got) == (0, [])
    assert ask(server).address == "a", "its circuit is closed"


def test_where_the_first_took_all_the_time_the_error_is_its_own(tiny: Tiny) -> None:
    class Greedy(Script):
        def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
            time.sleep(0.3)
            raise ServerUnavailable("late")

    second = Script("b")
    breaker = CircuitBreaker(failures=1)
    servers = Servers([Greedy("a"), second], tiny.manifest.contract, retries=Retries.none(), breaker=breaker)
    with pytest.raises(ServerUnavailable, match="late"):
        servers.infer(PAYLOAD, Deadline(0.2), Sends())
    assert (servers.breakers(), second.connected) == ({"a": "open", "b": "closed"}, 0)


def test_an_open_circuit_fails_at_once_says_until_when_and_closes_again(ask: Ask) -> None:
    server = Script("a", [ServerUnavailable("reset")] * 4)
    breaker = CircuitBreaker(failures=3, pause_s=0.3)
    options: dict[str, Any] = {"breaker": breaker, "retries": Retries.none()}
    for _ in range(3):
        with pytest.raises(ServerUnavailable, match="reset"):
            ask(server, **options)
    for _ in range(5):
        with pytest.raises(CircuitOpen, match=r"until \d\d:\d\d:\d\d\.\d{3} UTC"):
            ask(server, **options)
    assert len(server.got) == 3
    time.sleep(0.4)
    with pytest.raises(ServerUnavailable, match="reset"):
        ask(server, **options)  # the trial
    with pytest.raises(CircuitOpen):
        ask(server, **options)
    time.sleep(0.4)
    assert ask(server, **options).address == "a"
    assert ask(server, **options).address == "a"


@pytest.mark.parametrize("by", ["another server", "the device"])
def test_no_call_waits_for_a_server_that_swallows_all_while_another_can_answer(by: str, tiny: Tiny) -> None:
    """It is tried all the same, with a payload that no picture had a part in, and asked again once it is back."""
    first = Script("a", waits_s=9)
    others = [Script("b")] if by == "another server" else []
    breaker = CircuitBreaker(failures=1, pause_s=0.1)
    contract = tiny.manifest.contract
    servers = Servers([first, *others], contract, retries=Retries.none(), breaker=breaker, standby=not others)

    def call() -> str:
        try:
            return servers.infer(PAYLOAD, Deadline(1), Sends()).address
        except (ServerTimeout, CircuitOpen) as error:
            return type(error).__name__

    elsewhere = "b" if others else "CircuitOpen"
    assert call() == ("b" if others else "ServerTimeout"), "found out by a call"
    start, answers = time.monotonic(), 0
    while time.monotonic() < start + 1.5:
        before = time.monotonic()
        assert call() == elsewhere
        assert time.monotonic() - before < 0.1, "no call waits"
        answers += 1
        time.sleep(0.02)
    trials = [payload for payload, _ in first.got[1:]]
    assert 1 <= len(trials) <= 4, "one after the other, for the share of a call each"
    for payload in trials:
        assert [tensor.tolist() for tensor in payload] == [[spec.smallest().tolist()] for spec in contract.payload]
        assert all(spec.violation(tensor) is None for spec, tensor in zip(contract.payload, payload, strict=True))
    first.waits_s = 0.3  # a link that needs three pauses
    assert eventually(lambda: call() == "a")
    assert servers.breakers()["a"] == "closed"
    first.waits_s = 9
    call()
    assert servers.breakers()["a"] == "open", "one failure is enough after a trial"


@pytest.mark.parametrize("failure", [ServerUnavailable("reset"), ServerTimeout("slow"), AccessDenied("key")])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_who_was_left_alone_is_asked_after_all_where_the_others_fail(order: str, failure: DCPError, tiny: Tiny) -> None:
    """A server that has been well again for hours, and nobody noticed, since another answered."""
    back, other = Script("b", [ServerUnavailable("reset")]), Script("a")
    scripts = [other, back] if order == "ab" else [back, other]
    breaker = CircuitBreaker(failures=1, pause_s=0.1)
    servers = Servers(scripts, tiny.manifest.contract, retries=Retries.none(), breaker=breaker)
    if order == "ab":
        other._failures.append(ServerUnavailable("blip"))
        with pytest.raises(ServerUnavailable):
            servers.infer(PAYLOAD, Deadline(5), Sends())
        time.sleep(0.15)
    assert servers.infer(PAYLOAD, Deadline(5), Sends()).address == "a"
    assert servers.breakers()["b"] != "closed"
    time.sleep(0.15)
    other._failures.append(failure)
    assert servers.infer(PAYLOAD, Deadline(5), Sends()).address == "b"


def test_a_thread_that_cannot_be_had_is_tried_again(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Script("a", [ServerUnavailable("reset")])
    breaker = CircuitBreaker(failures=1, pause_s=0.1)
    servers = Servers([first, Script("b")], tiny.manifest.contract, retries=Retries.none(), breaker=breaker)

    def call() -> str:
        return servers.infer(PAYLOAD, Deadline(5), Sends()).address

    assert call() == "b"
    time.sleep(0.15)
    with monkeypatch.context() as patch:
        patch.setattr(
            threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("can't start new thread"))
        )
        assert call() == "b"
    assert eventually(lambda: call() == "a")


@pytest.mark.parametrize("nothing", [KeyboardInterrupt(), RuntimeUnavailable("no thread")], ids=type)
def test_what_says_nothing_of_a_server_is_no_answer_of_it(nothing: BaseException, tiny: Tiny) -> None:
    server = Script("a", [ServerUnavailable("reset"), nothing])
    breaker = CircuitBreaker(failures=1, pause_s=0.1)
    servers = Servers([server], tiny.manifest.contract, retries=Retries.none(), breaker=breaker)
    with pytest.raises(ServerUnavailable):
        servers.infer(PAYLOAD, Deadline(5), Sends())
    time.sleep(0.15)
    with pytest.raises(type(nothing)):
        servers.infer(PAYLOAD, Deadline(5), Sends())
    assert servers.breakers()["a"] == "half-open"
    servers.infer(PAYLOAD, Deadline(5), Sends())  # at once: nobody is trying any more
    assert servers.breakers()["a"] == "closed"


def test_an_open_circuit_tells_the_end_of_its_pause_however_long_a_call_may_take(tiny: Tiny) -> None:
    server = Script("a", [ServerUnavailable("reset")] * 9)
    breaker = CircuitBreaker(failures=3, pause_s=0.3)
    servers = Servers([server], tiny.manifest.contract, retries=Retries.none(), breaker=breaker)
    for _ in range(3):
        with pytest.raises(ServerUnavailable):
            servers.infer(PAYLOAD, Deadline(60), Sends())
    before = datetime.now(UTC)
    with pytest.raises(CircuitOpen) as caught:
        servers.infer(PAYLOAD, Deadline(60), Sends())
    told = re.search(r"until (\S+) UTC", str(caught.value))
    assert told is not None
    until = datetime.combine(before.date(), datetime.strptime(told[1], "%H:%M:%S.%f").time(), UTC)
    assert (until - before).total_seconds() % 86_400 < 0.35


def test_where_all_are_left_alone_a_call_tries_them_itself(tiny: Tiny) -> None:
    first, second = Script("a", [ServerUnavailable("reset")]), Script("b", [ServerUnavailable("reset")] * 9)
    breaker = CircuitBreaker(failures=1, pause_s=0.1)
    servers = Servers([first, second], tiny.manifest.contract, retries=Retries.none(), breaker=breaker)
    with pytest.raises(ServerUnavailable):
        servers.infer(PAYLOAD, Deadline(5), Sends())
    time.sleep(0.15)
    assert servers.infer(PAYLOAD, Deadline(5), Sends()).address == "a"
    assert [payload is PAYLOAD for payload, _ in first.got] == [True, True]


Told = Callable[[], list[tuple[object, ...]]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Read event, server and error of each record since the last time."""

    def read() -> list[tuple[object, ...]]:
        found = [
            tuple(getattr(record, f"dcp_{name}", None) for name in ("event", "server", "error"))
            for record in caplog.records
        ]
        caplog.clear()
        return found

    caplog.set_level(logging.INFO, "dcp_sdk")
    return read


@pytest.mark.parametrize(
    "failure",
    [AccessDenied("secret"), TLSFailed("secret"), ServerRejected("secret"), ContractMismatch("secret")],
    ids=lambda failure: type(failure).__name__,
)
def test_a_refusal_is_told_once(failure: DCPError, ask: Ask, told: Told, caplog: pytest.LogCaptureFixture) -> None:
    kind = type(failure).__name__
    server = Script("a", [failure] * 3)
    for _ in range(3):
        with pytest.raises(type(failure)):
            ask(server)
    assert "secret" not in caplog.text, "what a server says may be what it was sent"
    assert told() == [("server_refused", "a", kind)]
    ask(server)
    assert told() == [("server_back", "a", None)]


def test_another_kind_of_failure_is_a_change(ask: Ask, told: Told) -> None:
    failures: list[DCPError] = [ServerTimeout("1"), ServerUnavailable("2"), AccessDenied("3"), TLSFailed("4")]
    server = Script("a", [*failures, ServerTimeout("5")])
    for _ in range(5):
        with pytest.raises(DCPError):
            ask(server, retries=Retries.none())
    assert told() == [
        ("server_lost", "a", "ServerTimeout"),
        ("server_refused", "a", "AccessDenied"),
        ("server_refused", "a", "TLSFailed"),
        ("server_lost", "a", "ServerTimeout"),
    ]


def test_a_failover_does_not_hide_its_cause(ask: Ask, told: Told) -> None:
    first, second = Script("a", [AccessDenied("key")] * 9), Script("b")
    for _ in range(3):
        assert ask(first, second).address == "b"
    assert told() == [("server_refused", "a", "AccessDenied"), ("failover", "b", None)]


def test_one_call_at_a_time_tries_a_server_that_failed(ask: Ask) -> None:
    server = Script("a", [ServerUnavailable("reset")])
    options: dict[str, Any] = {"breaker": CircuitBreaker(failures=1, pause_s=0.3), "retries": Retries.none()}
    with pytest.raises(ServerUnavailable):
        ask(server, **options)
    time.sleep(0.4)
    server.waits_s = 9
    outcomes: list[str] = []
    gate = threading.Barrier(8)

    def call() -> None:
        gate.wait()
        try:
            outcomes.append(ask(server, timeout_s=0.25, **options).address)
        except (CircuitOpen, ServerTimeout) as error:
            outcomes.append(type(error).__name__)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(call)
    assert len(server.got) == 2, "the failure and one trial"
    assert outcomes.count("CircuitOpen") == 7


def test_calls_run_at_the_same_time(ask: Ask) -> None:
    """The breaker's bookkeeping is locked, the calls are not."""
    together = threading.Barrier(4)

    class Meeting(Script):
        def infer(self, payload: Payload, timeout_s: float) -> npt.NDArray[Any]:
            together.wait(5)
            return super().infer(payload, timeout_s)

    server = Meeting("a")
    with ThreadPoolExecutor(4) as pool:
        assert [answer.sends for answer in pool.map(lambda _: ask(server, timeout_s=10), range(4))] == [1] * 4


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Retries(attempts=0), "attempts"),
        (lambda: Retries(first_wait_s=2, longest_wait_s=1), "longest_wait_s"),
        (lambda: CircuitBreaker(pause_s=2), "pause_s"),
        (lambda: CircuitBreaker(failures=0), "failures"),
    ],
)
def test_options_that_make_no_sense(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()
