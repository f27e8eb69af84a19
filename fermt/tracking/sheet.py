"""Contact sheets: many small pictures in one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fermt_kernels.files import atomic_write

from ..marks import marked

FRAME_WIDTH = 320  # of a frame on the sheet, in pixels
MAX_FRAMES = 120  # frames on a sheet; beyond, every other one is dropped and the step between frames doubled
GAP = 4


class ContactSheet:
    """Collects every n-th frame of a video and writes them as one PNG."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._kept: list[np.ndarray] = []
        self._seen = 0

    def wants(self) -> bool:
        """Whether the next frame will be kept."""
        return self._seen % self.every == 0

    def add(self, image: np.ndarray) -> None:
        """Adds the next frame, (H, W, 3) uint8 RGB."""
        if self.wants():
            height = max(1, round(image.shape[0] * FRAME_WIDTH / image.shape[1]))
            self._kept.append(cv2.resize(image, (FRAME_WIDTH, height), interpolation=cv2.INTER_AREA))
            if len(self._kept) > MAX_FRAMES:
                self._kept, self.every = self._kept[::2], 2 * self.every
        self._seen += 1

    def skip(self) -> None:
        """Counts a frame that is not wanted."""
        self._seen += 1

    def save(self) -> None:
        """Writes the PNG; nothing if there was no frame."""
        if not self._kept:
            return
        height = max(image.shape[0] for image in self._kept)
        write_png(self.path, arrange(self._kept, math.ceil(math.sqrt(len(self._kept) * height / FRAME_WIDTH))))


def arrange(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arranges images, (H, W, 3) uint8, in rows of `columns`; the cells have the size of the largest image."""
    height, width = (max(image.shape[i] for image in images) for i in (0, 1))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes an image, (H, W, 3) uint8 RGB, atomically; OSError if that fails."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OSError(f"OpenCV cannot encode a picture for {str(path)!r}")
    atomic_write(path, marked(data.tobytes()))
