"""Image files: whole ones are read as stored, damaged ones refused, and what is left out is said."""

from __future__ import annotations

import errno
import os
import pickle
import zlib
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from fermt import images
from fermt.data.pool.folder import image_files
from fermt.data.synthetic.images import ImageFolder
from fermt.datasets.frames import Frames
from fermt.images import ImageError, exif_orientation, read_image, read_with_alpha
from fermt.tracking.sources import open_source

from .support.errors import lacking, refused


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    """A picture with detail, so that half of its bytes are half of its pixels."""
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8))
    return path


def with_segment(data: bytes, content: bytes) -> bytes:
    """A JPEG with an application's segment."""
    return data[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + data[2:]


def test_a_png_with_more_after_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image = np.random.default_rng(0).integers(256, size=(9, 8, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes() + b"x" * 300_000)
    assert np.array_equal(read_image(path), image[..., ::-1])


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
            with refused(ImageError, "a.jpg'", "JPEG", jpeg.stat().st_size):
                read_image(jpeg)
    for content in (b"", b"<html>"):
        jpeg.write_bytes(content)
        with refused(ImageError, "a.jpg'", *filter(None, [len(content)])):
            read_image(jpeg)
    with refused(ImageError, "none.jpg'", os.strerror(errno.ENOENT)):
        read_image(jpeg.with_name("none.jpg"))
    copied = pickle.loads(pickle.dumps(ImageError("a.jpg", "why")))
    assert (copied.path, copied.reason) == ("a.jpg", "why")
    assert lacking(str(copied), "'a.jpg'", "why") == []


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_said", set())


def exif(orientation: int, order: str) -> bytes:
    """An EXIF segment's content with an orientation after another entry."""
    first, kind = (b"II*\0", "little") if order == "little" else (b"MM\0*", "big")

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, kind)  # type: ignore[arg-type]

    entries = [(0x0100, 4, number(7, 4)), (0x0112, 3, number(orientation, 2) + b"\0\0")]
    body = b"".join(number(tag, 2) + number(form, 2) + number(1, 4) + value for tag, form, value in entries)
    return b"Exif\0\0" + first + number(8, 4) + number(len(entries), 2) + body + number(0, 4)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_orientation_is_ignored_everywhere_and_said(
    jpeg: Path, orientation: int, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = read_image(jpeg)
    jpeg.write_bytes(with_segment(jpeg.read_bytes(), exif(orientation, order)))
    assert exif_orientation(jpeg.read_bytes()) == orientation
    for _ in range(2):
        for image in (read_image(jpeg), next(iter(open_source(jpeg.parent))), read_with_alpha(jpeg)[..., :3]):
            assert np.array_equal(image, expected)
    assert caplog.text.count("EXIF orientation 6") == (orientation == 6)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", [2, 6])
def test_a_tiff_is_not_turned_either(
    tmp_path: Path, orientation: int, order: Literal["little", "big"], caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    head = b"II*\0" if order == "little" else b"MM\0*"
    # Width, height, bits, compression, RGB, start, orientation, channels, rows in a strip, bytes.
    values = (
        (256, 3),
        (257, 2),
        (258, 8),
        (259, 1),
        (262, 2),
        (273, 8),
        (274, orientation),
        (277, 3),
        (278, 2),
        (279, 18),
    )
    table = b"".join(
        tag.to_bytes(2, order) + (3).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(2, order) + b"\0\0"
        for tag, value in values
    )
    body = pixels.tobytes() + len(values).to_bytes(2, order) + table + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + (8 + pixels.size).to_bytes(4, order) + body)
    assert np.array_equal(read_image(tmp_path / "a.tif"), pixels)
    assert np.array_equal(read_with_alpha(tmp_path / "a.tif")[..., :3], pixels)
    assert f"EXIF orientation {orientation}" in caplog.text


def test_sixteen_bits_are_reduced_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.arange(0, 1300, dtype=np.uint16).reshape(26, 50)
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), values)
        image = read_image(tmp_path / f"a{suffix}")
        assert np.array_equal(image, np.repeat((values // 256).astype(np.uint8)[..., None], 3, axis=2))
    assert len(caplog.messages) == 1
    assert lacking(caplog.messages[0], 0, 1299, 5) == []
    cv2.imwrite(str(tmp_path / "b.tif"), np.repeat(values[..., None], 3, axis=2).astype(np.float32))
    with refused(ImageError, "b.tif'", "float32"):
        read_image(tmp_path / "b.tif")


def test_further_pages_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pages = [np.full((20, 30, 3), 40 * i, np.uint8) for i in range(1, 7)]
    cv2.imwritemulti(str(tmp_path / "a.tiff"), pages)
    assert np.array_equal(read_image(tmp_path / "a.tiff"), pages[0])
    assert lacking(caplog.text, "a.tiff'", 6) == []


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_half_an_image_is_refused_by_every_reader(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (read_image, read_with_alpha, lambda path: next(iter(open_source(path.parent)))):
        with refused(ImageError, f"a{suffix}'"):
            read(path)


def test_an_image_that_opencv_refuses_is_named(tmp_path: Path) -> None:
    header = b"IHDR" + (40000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    chunks = [header, b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks
    )
    (tmp_path / "a.png").write_bytes(data)
    for read in (read_image, read_with_alpha):
        with refused(ImageError, "a.png'"):
            read(tmp_path / "a.png")


def test_stray_files_are_no_images(jpeg: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = jpeg.parent / "photos"
    (folder / ".cache").mkdir(parents=True)
    (folder / "2.jpg").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")  # reading it would wait for ever
    for name in ("1.jpg", "._1.jpg", ".cache/3.jpg", "Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(jpeg.read_bytes())
    assert len(ImageFolder(folder)) == 1
    assert f"{3 + hasattr(os, 'mkfifo')} entries are skipped" in caplog.text
    splits = []
    for split in ("train", "val"):
        try:
            splits += image_files(folder, jpeg.parent, split)
        except FileNotFoundError:
            continue
    assert splits == [folder / "1.jpg"]
    assert list(Frames("a", folder)) == [folder / "1.jpg"]
