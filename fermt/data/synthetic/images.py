"""Folders of images for objects and backgrounds."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import cv2
import numpy as np

from ...images import SUFFIXES, read_with_alpha, select_images

CACHED_IMAGES = 128  # images in memory, of all folders together
MAX_IMAGE_SIDE = 512  # longer side in pixels, to which larger images are shrunk


class ImageFolder:
    """The images in a folder and below, in the order of their paths, as (H, W, 4) uint8 RGB and alpha.

    An image that cannot be read or is fully transparent causes one warning, and the next is used instead.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no images, or, on access, none that can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"no folder of images at {str(path)!r}")
        self._files = select_images(sorted(self.path.rglob("*")), self.path)
        if not self._files:
            raise ValueError(f"folder {str(path)!r} holds no images ({', '.join(SUFFIXES)})")
        self._damaged: set[Path] = set()

    def __len__(self) -> int:
        return len(self._files)

    def image(self, i: int) -> np.ndarray:
        """Reads image i, or the next one that can be read."""
        for step in range(len(self._files)):
            file = self._files[(i + step) % len(self._files)]
            if file in self._damaged:
                continue
            try:
                return _read(file)
            except ValueError as error:
                self._damaged.add(file)
                warnings.warn(f"{error}; it is skipped", stacklevel=2)
        raise ValueError(f"no image in folder {str(self.path)!r} can be read")


@functools.lru_cache(maxsize=CACHED_IMAGES)
def _read(file: Path) -> np.ndarray:
    image = read_with_alpha(file)
    if np.count_nonzero(image[..., 3] > 127) < 16:
        raise ValueError(f"image {str(file)!r} has nothing opaque")
    if (scale := MAX_IMAGE_SIDE / max(image.shape[:2])) < 1:
        size = [max(1, round(side * scale)) for side in (image.shape[1], image.shape[0])]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image
