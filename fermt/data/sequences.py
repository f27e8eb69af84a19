"""Sequences of images with a box in each: the form in which every data set is read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

JPEG, SCAN, END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers: start of a file, of its pixels, and its end


class Annotation(NamedTuple):
    """The boxes of one sequence."""

    boxes: np.ndarray  # (N, 4) float64, xywh in pixels
    valid: np.ndarray  # (N,) bool: the target is visible, and its box finite and of positive width and height


class SequenceSet(Protocol):
    """A data set. A set of still images has sequences of one image each."""

    name: str
    is_video: bool

    def __len__(self) -> int:
        """Sequences."""

    def annotation(self, i: int) -> Annotation:
        """The boxes of sequence `i`."""

    def image(self, i: int, t: int) -> np.ndarray:
        """Frame `t` of sequence `i`, (H, W, 3) uint8 RGB; ImageError if it is missing or damaged."""


class ImageError(Exception):
    """An image that is missing or damaged: its path, and why it cannot be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"image {self.path!r} cannot be read: {self.reason}"


def valid_boxes(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) xywh -> (N,) bool: which are finite and have an area."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, as stored: a camera's note on its orientation is ignored, as annotators' tools ignore it.

    Raises:
        ImageError: it is missing, cut off, or no image. A JPEG with wrong bytes in its middle is not noticed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(str(path), error.strerror or str(error)) from error
    if not data:
        raise ImageError(str(path), "the file is empty")
    if _is_cut_off(data):
        raise ImageError(str(path), f"a JPEG that is cut off after {len(data)} bytes")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(str(path), f"OpenCV refuses it: {error}") from error
    if image is None:
        raise ImageError(str(path), f"its {len(data)} bytes are no image that OpenCV knows")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG lacks its end, which OpenCV fills up with grey and says nothing.

    Neither marker occurs among coded pixels; the end of a thumbnail comes before the scan of the image itself.
    """
    if not data.startswith(JPEG):
        return False
    end = data.rfind(END)
    return end < 0 or data.find(SCAN, end) >= 0
