"""Images of data sets: whole ones are read as stored, damaged ones refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from fermt.data.sequences import ImageError, read_image


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    """A picture with detail, so that half of its bytes are half of its pixels."""
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8))
    return path


def with_segment(data: bytes, content: bytes) -> bytes:
    """A JPEG with an application's segment."""
    return data[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + data[2:]


def test_whole_images_are_read(jpeg: Path) -> None:
    expected, data = cv2.imread(str(jpeg))[..., ::-1], jpeg.read_bytes()
    rotated = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    for changed in (data, data + b"\0" * 100, data + b"more", with_segment(data, data), with_segment(data, rotated)):
        jpeg.write_bytes(changed)
        assert np.array_equal(read_image(jpeg), expected)
    assert cv2.imread(str(jpeg)).shape == (60, 40, 3)  # OpenCV itself turns it
    cv2.imwrite(str(jpeg.with_suffix(".png")), expected)
    assert read_image(jpeg.with_suffix(".png")).shape == (40, 60, 3)


def test_damaged_images_are_refused(jpeg: Path) -> None:
    data = jpeg.read_bytes()
    for size in (len(data) - 2, len(data) // 2):
        for whole in (data, with_segment(data, data)):
            jpeg.write_bytes(whole[: size + len(whole) - len(data)])
            with pytest.raises(ImageError, match=r"a.jpg' cannot be read: a JPEG that is cut off after \d+ bytes"):
                read_image(jpeg)
    for content, message in ((b"", "the file is empty"), (b"<html>", "its 6 bytes are no image")):
        jpeg.write_bytes(content)
        with pytest.raises(ImageError, match=message):
            read_image(jpeg)
    with pytest.raises(ImageError, match=r"none.jpg' cannot be read: No such file"):
        read_image(jpeg.with_name("none.jpg"))
    copied = pickle.loads(pickle.dumps(ImageError("a.jpg", "why")))
    assert (copied.path, str(copied)) == ("a.jpg", "image 'a.jpg' cannot be read: why")
