"""Reading of image files, by one rule for tracking, evaluation and training, and listing of folders of images."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from .messages import first_few

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
JPEG, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers: start of a file, of its pixels, and its end
PNG, PNG_END = b"\x89PNG", b"IEND"
EXIF, ORIENTATION, UPRIGHT = b"Exif\0\0", 0x0112, (0, 1)  # 0: unknown
TIFF = (b"II*\0", b"MM\0*")  # starts of files
PAGED = (*TIFF, b"II+\0", b"MM\0+")  # with those of BigTIFF
HEADER_BYTES = 4096  # bytes in which a file says that it is animated

logger = logging.getLogger(__name__)
_said: set[str] = set()  # kinds of remarks that this process has logged


class ImageError(ValueError):
    """An image cannot be read; has its path and the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"image {self.path!r} cannot be read: {self.reason}"


def read_image(path: Path) -> np.ndarray:
    """Reads an image, (H, W, 3) uint8 RGB, with its pixels as stored.

    EXIF orientation is ignored everywhere, because annotations of data sets (GOT-10k, LaSOT, COCO ...) are in stored
    pixels. Of 16 bits a channel the upper 8 are kept, of several pages the first, and alpha is dropped. The first image
    of a process in which orientation, bits or pages are left out is logged as a warning.

    Raises:
        ImageError: the file is missing, truncated or not an image. Wrong bytes inside a JPEG are not detected.
    """
    data, image = _decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    orientation = exif_orientation(data)
    if orientation not in UPRIGHT:
        _say_once(
            "orientation",
            f"image {str(path)!r} has EXIF orientation {orientation}, which is ignored: pixels and boxes are as stored",
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_with_alpha(path: Path) -> np.ndarray:
    """Reads an image as `read_image`, (H, W, 4) uint8 RGB and alpha, which is 255 if the file has none."""
    _, image = _decode(path, cv2.IMREAD_UNCHANGED)  # leaves the orientation as it is, too
    channels = image.shape[2] if image.ndim == 3 else 1
    codes = {1: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
    if channels not in codes:
        raise ImageError(str(path), f"it has {channels} channels, expected 1, 3 or 4")
    return cv2.cvtColor(image, codes[channels])


def opencv_name(name: str) -> str:
    """Returns a file's name or a URL if OpenCV takes it; ValueError if it is not UTF-8, at which OpenCV crashes."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"OpenCV needs names in UTF-8, got {os.fsencode(name)!r}: rename it") from error
    return name


def select_images(entries: Iterable[Path], below: Path | None = None) -> list[Path]:
    """Returns the image files among `entries`, in their order, without folders, pipes and hidden files.

    Those of them with an image's suffix (`._frame.jpg`, which macOS leaves behind) are logged as a warning.

    Args:
        below: a folder of the entries; those in hidden folders below it are left out, too. None: files that are hidden
            are taken, because the caller has named them.
    """
    kept, skipped = [], []
    for path in entries:
        if path.suffix.lower() not in SUFFIXES:
            continue
        if below is not None and any(part.startswith(".") for part in path.relative_to(below).parts):
            skipped.append(f"{str(path)!r} (hidden)")
        elif path.exists() and not path.is_file():
            skipped.append(f"{str(path)!r} ({'a folder' if path.is_dir() else 'a pipe or device'})")
        else:
            kept.append(path)
    if skipped:
        logger.warning("%d entries are skipped: %s", len(skipped), first_few(skipped, most=3))
    return kept


def exif_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG or TIFF, 1 to 8; 0 if it has none."""
    at, order = _orientation_at(data)
    return int.from_bytes(data[at : at + 2], order) if at else 0


def _orientation_at(data: bytes) -> tuple[int, Literal["little", "big"]]:
    """Where the two bytes of a JPEG's or TIFF's orientation are, and their order; 0 if there are none."""
    start = 0 if data.startswith(TIFF) else data.find(EXIF, 0, HEADER_BYTES) + len(EXIF)
    if start and (not data.startswith(JPEG) or start < len(EXIF)):
        return 0, "big"

    order: Literal["little", "big"] = "little" if data[start : start + 2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[start + at : start + at + size], order)

    first = number(4, 4)
    for i in range(number(first, 2)):
        entry = first + 2 + 12 * i
        if start + entry + 12 > len(data):
            break
        if number(entry, 2) == ORIENTATION:
            return start + entry + 8, order
    return 0, order


def _decode(path: Path, flags: int) -> tuple[bytes, np.ndarray]:
    """Returns a file's bytes and its pixels in OpenCV's order, uint8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(str(path), error.strerror or str(error)) from error
    if not data:
        raise ImageError(str(path), "the file is empty")
    if kind := _truncated(data):
        raise ImageError(str(path), f"a {kind} that is cut off after {len(data)} bytes")
    encoded = np.frombuffer(data, np.uint8)
    if data.startswith(TIFF) and exif_orientation(data) not in UPRIGHT:  # OpenCV turns those whatever the flags are
        at, order = _orientation_at(data)
        encoded = encoded.copy()
        encoded[at : at + 2] = list((1).to_bytes(2, order))
    try:
        image = cv2.imdecode(encoded, flags)
    except cv2.error as error:
        raise ImageError(str(path), f"OpenCV refuses it: {' '.join(str(error).split())}") from error
    if image is None:
        raise ImageError(str(path), f"its {len(data)} bytes are no image that OpenCV knows, or are cut off")
    if (pages := _pages(path, data)) > 1:
        _say_once("pages", f"image {str(path)!r} has {pages} pages, and only the first is read")
    return data, _eight_bits(path, image)


def _eight_bits(path: Path, image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise ImageError(str(path), f"its pixels are {image.dtype}, expected 8 or 16 bits without a sign")
    reduced = (image >> 8).astype(np.uint8)
    _say_once(
        "bits",
        f"image {str(path)!r} has 16 bits a channel, of which the upper 8 are kept: its values {image.min()} to "
        f"{image.max()} become {reduced.min()} to {reduced.max()}",
    )
    return reduced


def _truncated(data: bytes) -> str:
    """The format of a JPEG or PNG that lacks its end, which OpenCV may fill with gray without an error; else "".

    Markers do not occur among a JPEG's coded pixels; the end of a thumbnail comes before the scan of the image itself.
    """
    if data.startswith(PNG) and data.rfind(PNG_END) < 0:
        return "PNG"
    end = data.rfind(END)
    return "JPEG" if data.startswith(JPEG) and (end < 0 or data.find(SCAN, end) >= 0) else ""


def _pages(path: Path, data: bytes) -> int:
    """The number of pages or pictures in a TIFF, or in an animated WebP or PNG; 1 for other files."""
    animated_webp = data.startswith(b"RIFF") and b"ANIM" in data[:64]
    animated_png = data.startswith(PNG) and b"acTL" in data[:HEADER_BYTES]
    if not (data.startswith(PAGED) or animated_webp or animated_png):
        return 1
    try:
        return int(cv2.imcount(opencv_name(str(path))))
    except (cv2.error, ValueError):  # a page beyond the first is damaged
        return 2


def _say_once(kind: str, text: str) -> None:
    if kind not in _said:
        _said.add(kind)
        logger.warning("%s (said once)", text)
