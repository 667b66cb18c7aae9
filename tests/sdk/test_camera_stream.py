"""A stream from a camera, which goes on by itself: what is dropped, how old an answer is, and what stays behind."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from dcp_sdk import Camera, ConfigError, FrameError, PrivateClient
from tests.sdk.cameras import brightening, ending, stalling, url
from tests.sdk.conftest import Listen
from tests.sdk.helpers import eventually, no_streams
from tests.tiny import Tiny


def cameras() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dcp camera")]


def test_a_camera_whose_stream_is_left(tiny: Tiny, listen: Listen) -> None:
    """The frames are of now, those between are counted, and the camera that was opened here is let go."""
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        seen: list[int] = []
        with closing(
            client.stream(url(listen(brightening)), observe=lambda frame, _, __: seen.append(frame.index))
        ) as stream:
            for prediction in stream:
                assert prediction.frame_age_ms < 2000
                if len(seen) == 3:
                    time.sleep(0.5)  # 25 frames pass
                if len(seen) == 6:
                    break
            assert cameras() != []
        stats = client.stats()
        assert seen == sorted(set(seen))
        assert seen[3] - seen[2] > 5
        assert stats.frames_dropped >= seen[3] - seen[2] - 1 - 5, "all that nobody saw but what is under way"
        assert stats.frames_taken + stats.frames_dropped >= seen[-1] - seen[0] + 1
        assert cameras() == no_streams() == []


def test_a_camera_that_stalls_ends_the_stream_and_nothing_stays(tiny: Tiny, listen: Listen) -> None:
    """Left while it waits for a frame that does not come."""
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        stream = client.stream(url(listen(stalling)))
        assert next(stream).label
        threading.Timer(0.3, client.close).start()
        with pytest.raises(ConfigError, match="closed"):
            for _ in stream:
                pass
        assert eventually(lambda: cameras() == no_streams() == [])


def test_a_camera_that_ends_is_an_error_after_its_last_frame(tiny: Tiny, listen: Listen) -> None:
    with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu") as client:
        stream = client.stream(url(listen(ending)))
        assert next(stream).label
        with pytest.raises(FrameError, match="stopped giving frames"):
            for _ in stream:
                pass
        assert cameras() == no_streams() == []
        assert client.stats().failures == {"FrameError": 1}


def test_a_camera_of_the_caller_stays_open(tiny: Tiny, listen: Listen) -> None:
    with Camera(url(listen(brightening)), timeout_s=20) as camera:
        with PrivateClient(tiny.bundle, f"memory://{tiny.repository}", device="cpu", camera=camera) as client:
            for _ in range(2):
                with closing(client.stream()) as stream:
                    assert next(stream).label
                assert client.predict().label
            assert eventually(lambda: no_streams() == [])
        assert camera.read().image_rgb.size
