from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import Arrays, Camera, Folder, Frame, FrameError, FrameSource, Video, open_source
from dcp_sdk.preprocess import Image


@pytest.fixture
def video_file(tmp_path: Path) -> Path:
    """Five plain frames that get brighter: 10, 50, 90, 130, 170."""
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for level in range(10, 200, 40):
        writer.write(np.full((48, 64, 3), (level, 0, 0), np.uint8))  # BGR: blue
    writer.release()
    return path


def test_video_gives_every_frame_in_order_as_rgb(video_file: Path) -> None:
    video = Video(video_file)
    for _ in range(2):  # each iteration starts anew
        frames = list(video)
        assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
        for frame, level in zip(frames, range(10, 200, 40), strict=True):
            assert frame.image_rgb.shape == (48, 64, 3)
            np.testing.assert_allclose(frame.image_rgb.mean(axis=(0, 1)), (0, 0, level), atol=8)


def test_video_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with pytest.raises(FrameError, match="expected a video file"):
        Video(path)
    path.write_text("no video")
    with pytest.raises(FrameError, match="without a frame"):
        list(Video(path))


def test_folder_is_sorted_and_skips_what_has_no_picture_name(tmp_path: Path, picture_file: Path) -> None:
    for name in ("c.png", "a.PNG", "b.png"):
        (tmp_path / name).write_bytes(picture_file.read_bytes())
    (tmp_path / "labels.csv").write_text("a,b")
    picture_file.unlink()
    frames = list(Folder(tmp_path))
    assert [Path(frame.source).name for frame in frames] == ["a.PNG", "b.png", "c.png"]
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_folder_names_the_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    with pytest.raises(FrameError, match=r"bad\.jpg"):
        list(Folder(tmp_path))


def test_folder_that_is_none_or_empty(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="expected a folder"):
        Folder(tmp_path / "missing")
    with pytest.raises(FrameError, match="expected pictures"):
        Folder(tmp_path)


def test_arrays_are_read_lazily_and_checked(picture: Image) -> None:
    given = Frame(picture, 1.0, "mine", 7)
    frames = iter(Arrays(item for item in [picture, given, picture.astype(float)]))
    assert next(frames).index == 0
    again = next(frames)
    assert again.index == 7
    np.testing.assert_array_equal(again.image_rgb, picture)
    assert not np.shares_memory(again.image_rgb, picture), "whoever gave it may use it again"
    assert "[" not in repr(again), "no pixels"
    with pytest.raises(FrameError, match="float64"):
        next(frames)


def test_open_source_chooses(tmp_path: Path, video_file: Path, picture: Image) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    kinds: list[tuple[object, type[FrameSource]]] = [
        (video_file, Video),
        (str(video_file), Video),
        (tmp_path, Folder),
        ([picture], Arrays),
        (np.stack([picture, picture]), Arrays),
    ]
    for source, kind in kinds:
        assert type(open_source(source)) is kind  # type: ignore[arg-type]
    mine = Arrays([picture])
    assert open_source(mine) is mine


NO_SOURCES = ["face.jpg", "x" * 300, np.zeros((4, 4, 3), np.uint8), b"bytes", None, 1.5]


@pytest.mark.parametrize("source", NO_SOURCES, ids=repr)
def test_open_source_refuses(source: object) -> None:
    with pytest.raises(FrameError):
        open_source(source)  # type: ignore[arg-type]


def test_camera_that_is_not_there_is_an_error_in_time() -> None:
    with pytest.raises(FrameError, match="camera 97"):
        Camera(97, timeout_s=10)
    with pytest.raises(FrameError, match="camera http"):
        open_source("http://127.0.0.1:9/stream")
    with pytest.raises(FrameError, match="expected a frame from camera /dev/video99"):
        open_source("/dev/video99")
