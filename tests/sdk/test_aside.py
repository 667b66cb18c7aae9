"""Work that nobody can interrupt: its caller leaves in time, and a picture file that takes for ever costs one call."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import DeadlineExceeded, FrameError, Prediction, PrivateClient, Timeouts
from dcp_sdk.aside import Aside, Elsewhere
from dcp_sdk.deadline import Deadline
from dcp_sdk.preprocess import Image
from tests.sdk.helpers import eventually, no_more_threads
from tests.tiny import Tiny

FOREVER = 60.0


def test_what_it_gives_is_given_on() -> None:
    aside = Aside()
    assert aside.do(lambda: 42, Deadline(FOREVER), "work") == 42
    own = FrameError("its own")

    def fail() -> None:
        raise own

    with pytest.raises(FrameError) as caught:
        aside.do(fail, Deadline(FOREVER), "work")
    assert caught.value is own


def test_an_error_does_not_hold_what_it_is_about() -> None:
    """Otherwise each bad picture would stay in memory until the garbage collector comes by."""
    gc.disable()
    try:
        picture = np.zeros(8)
        gone = weakref.ref(picture)

        def fail(held: object = picture) -> None:
            raise FrameError("no picture")

        with pytest.raises(FrameError):
            Aside().do(fail, Deadline(FOREVER), "work")
        del picture, fail
        assert eventually(lambda: gone() is None)
    finally:
        gc.enable()


def test_where_no_thread_can_be_had_the_caller_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    assert Aside().do(lambda: 42, Deadline(FOREVER), "work") == 42


def test_its_caller_leaves_in_time_and_few_are_left_behind() -> None:
    """Four that hang are the most: after them callers wait for their turn, in vain, and none is started."""
    aside, let_go, started = Aside(), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        started.release()
        let_go.wait(FOREVER)

    start = time.monotonic()
    for _ in range(20):
        with pytest.raises(DeadlineExceeded, match="work"):
            aside.do(hang, Deadline(0.02), "work")
    assert time.monotonic() - start < FOREVER / 2
    assert sum(started.acquire(blocking=False) for _ in range(20)) == 4
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


def test_a_stream_gives_a_file_no_more_time_than_a_request(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "bomb.jpg").write_bytes(many_scans(8192, 150))
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", timeouts=Timeouts(predict_s=0.5)) as client:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="decoding the picture"):
            list(client.stream(tmp_path))
        assert time.monotonic() - start < 5


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
@pytest.mark.parametrize("kind", ["a picture", "a folder", "a video"])
def test_a_file_that_hangs_when_it_is_opened_costs_one_call(
    kind: str, tiny: Tiny, picture: Image, tmp_path: Path
) -> None:
    """Another process holds a lease on the file: whoever opens it waits until that one lets go."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / ("video.avi" if kind == "a video" else "picture.png")
    if kind == "a video":
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for _ in range(3):
            writer.write(np.zeros((48, 64, 3), np.uint8))
        writer.release()
    else:
        cv2.imwrite(str(path), picture)
    timeouts = Timeouts(predict_s=0.5)
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu", timeouts=timeouts) as client:

        def answers() -> list[Prediction]:
            if kind == "a picture":
                return [client.predict(path)]
            return list(client.stream(folder if kind == "a folder" else path))

        with holding(path):
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded, match="decoding the picture"):
                answers()
            assert time.monotonic() - start < 5
        assert len(answers()) == (3 if kind == "a video" else 1)


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Let another process keep everybody from opening a file."""
    program = f"""
import fcntl, os, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel asks for the file to be let go
fcntl.fcntl(os.open({str(path)!r}, os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
input()
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.kill()


@pytest.mark.parametrize("held", ["a file that is decoded", "a stream"])
def test_a_process_that_ends_meanwhile_ends_well(held: str, tiny: Tiny, tmp_path: Path) -> None:
    """A thread that came back from OpenCV after the interpreter's end would abort it."""
    large = tmp_path / "large.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (5000, 7000, 3), np.uint8)
    assert cv2.imwrite(str(large), noise)
    for copy in range(3):
        large.with_name(f"{copy}.jpg").hardlink_to(large)
    program = f"""
from dcp_sdk import DeadlineExceeded, PrivateClient, Timeouts
seconds, streams = ({0.1 if held.startswith("a file") else 30}, {held == "a stream"})
client = PrivateClient({str(tiny.bundle)!r}, "memory://{tiny.repository}", timeouts=Timeouts(predict_s=seconds))
if streams:
    stream = client.stream({str(tmp_path)!r})
    next(stream)
else:
    try:
        client.predict({str(large)!r})
    except DeadlineExceeded:
        pass
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def many_scans(side: int, times: int) -> bytes:
    """Write a progressive JPEG, and put its last scan behind it again and again."""
    black = np.zeros((side, side), np.uint8)
    written, encoded = cv2.imencode(".jpg", black, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert written
    jpeg = encoded.tobytes()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + times * jpeg[last:-2] + jpeg[-2:]


def test_the_main_thread_s_work_is_done_by_another_and_the_same_again() -> None:
    elsewhere = Elsewhere("dcp test")
    asked: ContextVar[str] = ContextVar("asked", default="nobody")
    asked.set("me")

    def work() -> tuple[int, str]:
        return threading.get_ident(), asked.get()

    first, second = elsewhere.do(work, 5), elsewhere.do(work, 5)
    assert first == second, "by one thread, which knows for whom"
    assert first[0] != threading.get_ident()
    assert first[1] == "me"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: elsewhere.do(work, 5)[0] == threading.get_ident()).result()
    with pytest.raises(ZeroDivisionError):
        elsewhere.do(lambda: 1 // 0, 5)
    assert eventually(lambda: "dcp test" not in {thread.name for thread in threading.enumerate()})
    assert elsewhere.do(work, 5)[1] == "me"


def test_the_main_thread_waits_no_longer_than_it_said_and_is_not_held_up_by_what_it_left() -> None:
    elsewhere = Elsewhere("dcp test")
    go = threading.Event()
    with pytest.raises(TimeoutError):
        elsewhere.do(go.wait, 0.05)
    assert elsewhere.do(lambda: "done", 5) == "done"
    go.set()


def test_without_a_thread_the_main_one_does_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    assert Elsewhere("dcp test").do(threading.get_ident, 5) == threading.get_ident()
