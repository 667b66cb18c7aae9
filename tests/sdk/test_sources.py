from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import Arrays, Camera, ConfigError, Folder, Frame, FrameError, FrameSource, Video, open_source
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


def written(path: Path, codec: str, count: int, frames_per_s: float) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), frames_per_s, (64, 48))
    assert writer.isOpened()
    rng = np.random.default_rng(count)
    for _ in range(count):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("frames_per_s", [1, 10, 29.97, 60])
@pytest.mark.parametrize("count", [1, 2, 5, 30, 301])
@pytest.mark.parametrize(("codec", "suffix"), [("MJPG", "avi"), ("XVID", "avi"), ("mp4v", "mp4"), ("mp4v", "mkv")])
def test_a_whole_video_ends_in_peace(codec: str, suffix: str, count: int, frames_per_s: float, tmp_path: Path) -> None:
    path = written(tmp_path / f"video.{suffix}", codec, count, frames_per_s)
    assert len(list(Video(path))) == count


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_an_avi_that_is_cut_short_says_so_after_its_last_frame(share: float, tmp_path: Path) -> None:
    path = written(tmp_path / "video.avi", "MJPG", 30, 10)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    given: list[Frame] = []
    with pytest.raises(FrameError, match=r"expected 30 frames in .*video\.avi, got \d+: .* Copy or record it again"):
        given.extend(Video(path))  # keeps what came before the error
    assert 30 * share - 3 <= len(given) < 30


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "mp4v"), ("mkv", "MJPG"), ("webm", "VP80")])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_matroska_file_that_is_cut_short_says_so(suffix: str, codec: str, share: float, tmp_path: Path) -> None:
    path = written(tmp_path / f"video.{suffix}", codec, 30, 10)
    assert len(list(Video(path))) == 30
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    given: list[Frame] = []
    with pytest.raises(FrameError, match=r"expected 30 frames in .*, got \d+: .* Copy or record it again"):
        given.extend(Video(path))
    assert len(given) < 30


def test_a_recording_of_unknown_length_is_not_called_short(tmp_path: Path) -> None:
    """Who records to a pipe cannot go back and write how long it became."""
    path = written(tmp_path / "video.mkv", "mp4v", 30, 10)
    mkv = bytearray(path.read_bytes())
    at = mkv.index((0x18538067).to_bytes(4)) + 4
    mkv[at : at + 8] = b"\x01" + 7 * b"\xff"
    path.write_bytes(mkv[: len(mkv) // 2])
    assert 0 < len(list(Video(path))) < 30


def with_index_in_front(mp4: bytes) -> bytes:
    """Move ``moov`` before ``mdat``, as for the web, so that a file that is cut short still opens."""
    at, parts = 0, {}
    while at < len(mp4):
        length = int.from_bytes(mp4[at : at + 4])
        parts[mp4[at + 4 : at + 8]] = mp4[at : at + length]
        at += length
    index = bytearray(parts[b"moov"])
    chunks = index.index(b"stco") + 8
    for number in range(int.from_bytes(index[chunks : chunks + 4])):
        at = chunks + 4 + 4 * number
        index[at : at + 4] = (int.from_bytes(index[at : at + 4]) + len(index)).to_bytes(4)
    parts[b"moov"] = bytes(index)
    return b"".join(
        parts[name] for name in (b"ftyp", b"moov", *(parts.keys() - {b"ftyp", b"moov"} - {b"mdat"}), b"mdat")
    )


def test_an_mp4_that_is_cut_short_says_so_after_its_last_frame(tmp_path: Path) -> None:
    path = written(tmp_path / "video.mp4", "mp4v", 30, 10)
    path.write_bytes(with_index_in_front(path.read_bytes()))
    assert len(list(Video(path))) == 30
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FrameError, match="expected 30 frames"):
        list(Video(path))


def test_a_trimmed_mp4_is_whole_although_it_states_more_frames(tmp_path: Path) -> None:
    """Telephones trim without writing anew: an edit list says which frames to show."""
    path = written(tmp_path / "video.mp4", "mp4v", 30, 10)
    mp4 = bytearray(path.read_bytes())
    shown = mp4.index(b"elst") + 12
    mp4[shown : shown + 4] = (int.from_bytes(mp4[shown : shown + 4]) // 3).to_bytes(4)
    path.write_bytes(mp4)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 30, "or the test shows nothing"
    assert len(list(Video(path))) == 10


@pytest.mark.parametrize("name", ["10:20:30.mp4", "tcp:127.0.0.1:9.mp4", "caf\udce9.mp4", "ü ñ 漢 %d.mp4"])
def test_a_video_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV would take some for an address, and at others it would end the process."""
    written(tmp_path / "video.mp4", "mp4v", 3, 10).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(open_source(name))) == 3
    assert len(list(Video(tmp_path / name))) == 3


def test_names_that_name_nothing(tmp_path: Path, picture_file: Path) -> None:
    with pytest.raises(FrameError, match="an empty name"):
        open_source("")
    with pytest.raises(ConfigError, match="UTF-8"):
        open_source("/dev/caf\udce9")
    (tmp_path / "inside.png").mkdir()
    (tmp_path / "a.png").write_bytes(picture_file.read_bytes())
    assert [path.name for path in Folder(tmp_path).paths if path != picture_file] == ["a.png"]


def test_a_gif_is_no_video(tmp_path: Path, video_file: Path) -> None:
    """OpenCV gives one frame of five, where they have no times, and says nothing."""
    gif = video_file.rename(tmp_path / "moving.GIF")
    with pytest.raises(FrameError, match=r"got the GIF .*moving\.GIF.*Use predict for its first frame, or convert it"):
        open_source(gif)


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
