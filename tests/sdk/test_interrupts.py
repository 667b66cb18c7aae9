"""Ctrl-C, signal handlers and the end of the program, at any moment: real signals, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import Tiny

BEGIN = """
import os, random, signal, sys, threading, time
import numpy as np
from dcp_sdk import PrivateClient, Timeouts
client = PrivateClient({bundle!r}, "memory://{repository}", device="cpu", timeouts=Timeouts(predict_s=2))
picture = np.zeros((32, 32, 3), np.uint8)
client.predict(picture)
"""


def end_of(program: str, tiny: Tiny) -> subprocess.CompletedProcess[str]:
    begin = BEGIN.format(bundle=str(tiny.bundle), repository=tiny.repository)
    return subprocess.run(
        [sys.executable, "-c", begin + program], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("what", ["picture", "file"])
def test_whoever_is_interrupted_holds_up_nobody(what: str, tiny: Tiny, picture_file: Path) -> None:
    """A notebook's user interrupts calls, at a thousand moments: later ones, and streams, still end in time."""
    program = f"""
file = {str(picture_file)!r}
armed = False
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
print(len(answers), flush=True)
os._exit(0)
"""
    ended = end_of(program, tiny)
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr[-2000:]


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
