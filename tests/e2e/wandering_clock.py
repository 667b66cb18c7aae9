"""``python -m tests.e2e.wandering_clock BUNDLE PICTURE CLOCK ADDRESS [CA]``: predict while the time of day is set.

It runs under libfaketime, which reads what the time of day is from the file CLOCK. The monotonic clock is left alone,
as it is where somebody sets a clock. Writes a line of JSON for each phase, and goes on when a line comes back.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

from dcp_sdk import DCPError, PrivateClient, Security, Timeouts
from tests.e2e.clock import JUMPS, PREDICT_S, TRUE

CALLS = 40


def main(bundle: str, picture: str, clock: str, address: str, ca_file: str = "") -> None:
    """Predict before, while and after the clock wanders."""
    image, dial = np.load(picture), Path(clock)
    security = Security(ca_file=Path(ca_file)) if ca_file else None

    def turn(jump: str) -> None:
        aside = dial.with_suffix(".new")
        aside.write_text(jump)
        aside.replace(dial)

    def call() -> dict[str, object]:
        start = time.monotonic()
        try:
            said: dict[str, object] = {"probabilities": client.predict(image).probabilities}
        except DCPError as error:
            said = {"error": type(error).__name__, "says": str(error)}
        return said | {"seconds": time.monotonic() - start, "year": time.gmtime().tm_year}

    def wander() -> None:
        for jump in itertools.cycle(JUMPS):
            turn(jump)
            if done.wait(0.01):
                break

    def tell(phase: str, calls: list[dict[str, object]]) -> None:
        sys.stdout.write(json.dumps({"phase": phase, "calls": calls}) + "\n")
        sys.stdout.flush()
        sys.stdin.readline()

    timeouts = Timeouts(connect_s=5, predict_s=PREDICT_S)
    with PrivateClient(bundle, address, device="cpu", timeouts=timeouts, security=security) as client:
        tell("true", [call()])
        for jump in JUMPS:
            turn(jump)
            tell(jump, [call()])
        done = threading.Event()
        hand = threading.Thread(target=wander)
        hand.start()
        calls = [call() for _ in range(CALLS)]
        done.set()
        hand.join()
        tell("wandering", calls)
        turn(TRUE)
        tell("true again", [call()])


if __name__ == "__main__":
    main(*sys.argv[1:])
