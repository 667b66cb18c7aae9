from __future__ import annotations

import io
import os
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from dcp_sdk import Frame, FrameError, load_image
from dcp_sdk.frames import as_frame
from dcp_sdk.preprocess import Image


def encode(extension: str, image_bgr: np.ndarray) -> bytes:
    done, data = cv2.imencode(extension, image_bgr)
    assert done
    return data.tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment with this orientation behind the JPEG's first marker."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tiff"])
def test_lossless_files_give_the_very_picture(extension: str, picture: Image) -> None:
    np.testing.assert_array_equal(load_image(encode(extension, picture[..., ::-1])), picture)


@pytest.mark.parametrize("extension", [".jpg", ".webp"])
def test_lossy_files_come_close(extension: str, picture: Image) -> None:
    decoded = load_image(encode(extension, picture[..., ::-1]))
    assert np.abs(decoded.astype(int) - picture).mean() < 8


def test_path_and_bytes_agree(picture_file: Path) -> None:
    expected = load_image(picture_file.read_bytes())
    np.testing.assert_array_equal(load_image(picture_file), expected)
    np.testing.assert_array_equal(load_image(str(picture_file)), expected)


def test_grey_transparent_and_deep_files_become_rgb(picture: Image) -> None:
    grey = picture[..., 0]
    np.testing.assert_array_equal(load_image(encode(".png", grey)), np.repeat(grey[..., None], 3, axis=-1))
    rgba = np.dstack([picture[..., ::-1], np.full(grey.shape, 200, np.uint8)])
    np.testing.assert_array_equal(load_image(encode(".png", rgba)), picture)
    deep = picture[..., ::-1].astype(np.uint16) * 257
    np.testing.assert_array_equal(load_image(encode(".png", deep)), picture)


@pytest.mark.parametrize(
    "picture", [bytearray(b"1"), memoryview(b"1"), io.BytesIO(b"1"), None], ids=lambda value: type(value).__name__
)
def test_what_is_no_file_of_a_picture(picture: object) -> None:
    with pytest.raises(FrameError, match="expected the path or the bytes of a picture file, got"):
        load_image(picture)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda image: image),
        (3, lambda image: np.rot90(image, 2)),
        (6, lambda image: np.rot90(image, -1)),
        (8, lambda image: np.rot90(image, 1)),
    ],
)
def test_exif_orientation_is_applied_to_files_and_bytes(
    orientation: int, turn: object, picture: Image, tmp_path: Path
) -> None:
    jpeg = encode(".jpg", picture[..., ::-1])
    turned = with_orientation(jpeg, orientation)
    path = tmp_path / "turned.jpg"
    path.write_bytes(turned)
    expected = turn(load_image(jpeg))  # type: ignore[operator]
    np.testing.assert_array_equal(load_image(turned), expected)
    np.testing.assert_array_equal(load_image(path), expected)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello", "none"),
        (b"\xff\xd8\xff\xe0 no jpeg", "none"),
        (b"\x89PNG\r\n\x1a\n", "PNG file that is cut short"),
    ],
    ids=["zero bytes", "text", "cut jpeg", "cut png"],
)
def test_what_is_not_a_picture(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    for picture in (content, path):
        with pytest.raises(FrameError, match=says):
            load_image(picture)


@pytest.mark.parametrize("name", ["missing.jpg", "", "a\0b"])
def test_what_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="expected a picture file at"):
        load_image(str(tmp_path / name))


def test_huge_header_is_refused(picture: Image) -> None:
    png = bytearray(encode(".png", picture))
    png[16:24] = struct.pack(">II", 1 << 20, 1 << 20)
    with pytest.raises(FrameError):
        load_image(bytes(png))


def test_a_larger_picture_than_allowed_is_not_decoded() -> None:
    """A black picture of 67 million pixels is a file of 80 kB."""
    black = np.zeros((8200, 8200), np.uint8)
    with pytest.raises(FrameError, match="at most 67,108,864 pixels"):
        load_image(encode(".png", black))


def test_as_frame_knows_where_a_picture_comes_from(picture: Image, picture_file: Path) -> None:
    before = time.monotonic()
    frames = [as_frame(item) for item in (picture, picture_file, str(picture_file), picture_file.read_bytes())]
    assert [frame.source for frame in frames] == ["array", str(picture_file), str(picture_file), "bytes"]
    for frame in frames:
        np.testing.assert_array_equal(frame.image_rgb, picture)
        assert before <= frame.captured_at <= time.monotonic()
    assert as_frame(frames[0]) is frames[0]


def test_age_grows(picture: Image) -> None:
    assert 2000 <= Frame(picture, time.monotonic() - 2, "test").age_ms < 12000


@pytest.mark.parametrize("item", [None, 3, [[1, 2], [3, 4]], {}], ids=str)
def test_other_things_are_no_frames(item: object) -> None:
    with pytest.raises(FrameError, match="expected an RGB picture"):
        as_frame(item)  # type: ignore[arg-type]


def test_a_folder_is_no_picture_and_the_error_says_what_takes_one(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="got a folder: `stream` takes those"):
        load_image(tmp_path)


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    pipe, huge = tmp_path / "pipe", tmp_path / "huge.png"
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
    for path, says in ((pipe, "a pipe or a device"), (Path("/dev/zero"), "a pipe or a device"), (huge, "are the most")):
        with pytest.raises(FrameError, match=says):
            load_image(path)
