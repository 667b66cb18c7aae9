"""Ctrl-C, signal handlers and the end of the program, at any moment: real signals, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dcp_sdk.serving import TritonServer
from tests.sdk.transport import hostile
from tests.tiny import Tiny

BEGIN = """
import os, random, signal, sys, threading, time
import numpy as np
from dcp_sdk import PrivateClient, Timeouts
client = PrivateClient({bundle!r}, {server!r}, device="cpu", timeouts=Timeouts(predict_s=2))
picture = np.zeros((32, 32, 3), np.uint8)
client.predict(picture)
"""


_INTERRUPTED = """
file = {file!r}
armed = False
def others():
    while True:
        client.predict(picture)
threading.excepthook = lambda _: None  # they end with ConfigError
for _ in range({threads}):
    threading.Thread(target=others, daemon=True).start()
def interrupt(*_):
    if armed:
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
for _ in range(1000):
    try:
        armed = True
        # Again, where the first one fell into a finaliser, which swallows it.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.004), 0.05)
        while True:
            client.predict({what})
    except BaseException:  # Python's own threading may make another error of it
        armed = False
signal.setitimer(signal.ITIMER_REAL, 0)
answers = []
def go_on():
    answers.extend(client.stream([picture] * 2))
    answers.append(client.predict(file))
thread = threading.Thread(target=go_on, daemon=True)
thread.start()
thread.join(10)
print(len(answers), end=" ", flush=True)
thread = threading.Thread(target=client.close, daemon=True)
thread.start()
thread.join(10)
print("late" if thread.is_alive() else "closed", flush=True)
os._exit(0)
"""


def end_of(program: str, tiny: Tiny, server: str | None = None) -> subprocess.CompletedProcess[str]:
    begin = BEGIN.format(bundle=str(tiny.bundle), server=server or f"memory://{tiny.repository}")
    return subprocess.run(
        [sys.executable, "-c", begin + program], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("what", ["picture", "file"])
def test_whoever_is_interrupted_holds_up_nobody(what: str, tiny: Tiny, picture_file: Path) -> None:
    """A notebook's user interrupts calls, at a thousand moments: later ones, and streams, still end in time."""
    ended = end_of(_INTERRUPTED.format(file=str(picture_file), what=what, threads=0), tiny)
    assert (ended.returncode, ended.stdout) == (0, "3 closed\n"), ended.stderr[-2000:]


@pytest.mark.triton
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_whoever_is_interrupted_while_a_server_is_asked_holds_up_nobody(
    scheme: str, tiny: Tiny, tiny_server: TritonServer, picture_file: Path
) -> None:
    """Beside other threads that use the same connection."""
    address = tiny_server.grpc_address if scheme == "grpc" else tiny_server.http_address
    ended = end_of(_INTERRUPTED.format(file=str(picture_file), what="picture", threads=2), tiny, address)
    assert (ended.returncode, ended.stdout) == (0, "3 closed\n"), ended.stderr[-2000:]


@pytest.mark.parametrize("scheme", hostile.SERVERS)
def test_a_signal_handler_may_close_in_the_middle_of_a_call(scheme: str, tiny: Tiny) -> None:
    """Not with Triton: before 25.04 it crashes now and then when a call is cancelled."""
    contract = tiny.manifest.contract
    program = f"""
from dcp_sdk import ConfigError
threading.Thread(target=lambda: (time.sleep(60), os._exit(3)), daemon=True).start()
for _ in range(60):
    signal.signal(signal.SIGALRM, lambda *_: client.close())
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.01))
    try:
        while True:
            client.predict(picture)
    except ConfigError:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    client = PrivateClient({str(tiny.bundle)!r}, "ADDRESS", device="cpu", timeouts=Timeouts(predict_s=2))
os._exit(0)
"""
    with hostile.SERVERS[scheme](contract, hostile.true_answer(contract)) as address:
        ended = end_of(program.replace("ADDRESS", address), tiny, address)
    assert ended.returncode == 0, ended.stderr[-2000:] or "3: it waits for itself"


def test_a_signal_handler_may_ask_for_the_counts(tiny: Tiny) -> None:
    program = """
asked = 0
def tell(*_):
    global asked
    asked += 1
    client.stats()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.002))
signal.signal(signal.SIGALRM, tell)
threading.Thread(target=lambda: (time.sleep(30), os._exit(3)), daemon=True).start()
tell()
while asked < 1000:
    client.predict(picture)
os._exit(0)
"""
    assert end_of(program, tiny).returncode == 0, "3: it waits for itself"


def test_threads_that_predict_when_the_program_ends_do_not_abort_it(tiny: Tiny) -> None:
    program = """
def go():
    while True:
        client.predict(picture)
threading.excepthook = lambda _: None  # they end with ConfigError
for _ in range(4):
    threading.Thread(target=go, daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(3):
        ended = end_of(program, tiny)
        assert (ended.returncode, ended.stderr) == (0, "")
