"""Sequences of annotated images, the common form of training data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

JPEG, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers: start of a file, of its pixels, and its end


class Annotation(NamedTuple):
    """The boxes of one sequence."""

    boxes: np.ndarray  # (N, 4) float64, xywh in pixels
    valid: np.ndarray  # (N,) bool: the target is visible, and its box is finite with positive width and height


class SequenceSet(Protocol):
    """A data set. A set of still images has sequences of one image each."""

    name: str
    is_video: bool

    def __len__(self) -> int:
        """Returns the number of sequences."""

    def annotation(self, i: int) -> Annotation:
        """Returns the boxes of sequence `i`."""

    def image(self, i: int, t: int) -> np.ndarray:
        """Reads frame `t` of sequence `i`, (H, W, 3) uint8 RGB; ImageError if it is missing or damaged."""


class ImageError(Exception):
    """An image cannot be read; has its path and the reason."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"image {self.path!r} cannot be read: {self.reason}"


def valid_boxes(boxes: np.ndarray) -> np.ndarray:
    """Which boxes, (N, 4) xywh, are finite and have an area: (N,) bool."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)


def read_image(path: Path) -> np.ndarray:
    """Reads an image, (H, W, 3) uint8 RGB. EXIF orientation is ignored, as annotation tools do.

    Raises:
        ImageError: the file is missing, truncated or not an image. Wrong bytes inside a JPEG are not detected.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(str(path), error.strerror or str(error)) from error
    if not data:
        raise ImageError(str(path), "the file is empty")
    if _is_truncated(data):
        raise ImageError(str(path), f"a JPEG that is cut off after {len(data)} bytes")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(str(path), f"OpenCV refuses it: {error}") from error
    if image is None:
        raise ImageError(str(path), f"its {len(data)} bytes are no image that OpenCV knows")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_truncated(data: bytes) -> bool:
    """Whether a JPEG lacks its end, which OpenCV would silently fill with gray.

    Markers do not occur among coded pixels; the end of a thumbnail comes before the scan of the image itself.
    """
    if not data.startswith(JPEG):
        return False
    end = data.rfind(END)
    return end < 0 or data.find(SCAN, end) >= 0
