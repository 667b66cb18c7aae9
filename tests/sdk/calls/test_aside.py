"""Work that nobody can interrupt: its caller leaves in time, and a picture file that takes for ever costs one call."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import DeadlineExceeded, FrameError, PrivateClient, Timeouts
from dcp_sdk.calls.aside import Aside
from dcp_sdk.deadline import Deadline
from dcp_sdk.preprocess import Image
from tests.tiny import Tiny

FOREVER = 60.0


def test_what_it_gives_is_given_on() -> None:
    aside = Aside()
    assert aside.do(lambda: 42, Deadline(FOREVER), "work") == 42
    own = TimeoutError("its own")

    def fail() -> None:
        raise own

    with pytest.raises(TimeoutError) as caught:
        aside.do(fail, Deadline(FOREVER), "work")
    assert caught.value is own


def test_its_caller_leaves_in_time_and_few_are_left_behind() -> None:
    """Eight that hang are the most: after them callers wait for their turn, in vain, and none is started."""
    aside, let_go, started = Aside(), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        started.release()
        let_go.wait(FOREVER)

    start = time.monotonic()
    for _ in range(20):
        with pytest.raises(DeadlineExceeded, match="after work"):
            aside.do(hang, Deadline(0.02), "work")
    assert time.monotonic() - start < FOREVER / 2
    assert sum(started.acquire(blocking=False) for _ in range(20)) == 8
    let_go.set()
    assert aside.do(lambda: 42, Deadline(FOREVER), "work") == 42


def test_a_file_that_takes_long_to_decode(tiny: Tiny, tmp_path: Path, picture: Image) -> None:
    """A black JPEG of 300 kilobytes whose scans go over 64 megapixels again and again."""
    bomb = tmp_path / "bomb.jpg"
    bomb.write_bytes(many_scans(8192, 150))
    assert bomb.stat().st_size < 300_000
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", timeouts=Timeouts(predict_s=0.5)) as client:
        client.predict(picture)
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="decoding the picture"):
            client.predict(bomb)
        assert time.monotonic() - start < 5, "it takes many times as long to decode"
        with pytest.raises(FrameError):
            client.predict(b"no picture")
        assert client.stats().failures == {"DeadlineExceeded": 1, "FrameError": 1}


def many_scans(side: int, times: int) -> bytes:
    """Write a progressive JPEG, and put its last scan behind it again and again."""
    black = np.zeros((side, side), np.uint8)
    written, encoded = cv2.imencode(".jpg", black, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert written
    jpeg = encoded.tobytes()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + times * jpeg[last:-2] + jpeg[-2:]
