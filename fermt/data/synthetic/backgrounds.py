"""Backgrounds: textures with shapes on them, or images of a folder."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import cv2
import numpy as np

from ..pairs import generator_for
from .images import ImageFolder
from .layers import lay_over, premultiplied
from .shapes import shape
from .textures import Generator, colored, gradient, noise, palette, patches, pattern, spots

SIZE = 512  # pixels a side of a drawn background, which is mirrored beyond its edges
NUM_BACKGROUNDS = 64  # backgrounds for one seed; each sequence recolors, rotates, scales and shifts one
CACHED_BACKGROUNDS = 64  # in memory
LEVELS = 3  # of the image pyramid
STREAM = 1  # first number of the key of random numbers
BACKGROUND_PATTERNS = (noise, noise, gradient, spots, patches)


class Background(NamedTuple):
    """A background as an image pyramid."""

    levels: tuple[np.ndarray, ...]  # (h, w, 3) uint8 RGB, each half as large as the one before
    mean: np.ndarray  # (3,) mean color, 0 to 255


def draw(rng: Generator, clutter: int) -> np.ndarray:
    """Draws a background, (SIZE, SIZE, 3) uint8 RGB: a texture with up to `clutter` shapes on it."""
    draw_pattern = BACKGROUND_PATTERNS[rng.integers(len(BACKGROUND_PATTERNS))]
    image = colored(draw_pattern(rng, SIZE), palette(rng, saturation=0.7))
    for _ in range(int(rng.integers(clutter + 1))):
        side = int(SIZE * np.exp(rng.uniform(np.log(0.04), np.log(0.3))))
        left, top = rng.integers(0, SIZE - side + 1, 2)
        lay_over(image, premultiplied(colored(pattern(rng, side), palette(rng, 0.8)), shape(rng, side)), left, top)
    fine, strength = noise(rng, SIZE), float(rng.uniform(0, 0.25))
    return cv2.addWeighted(image, 1 - strength, cv2.merge((fine, fine, fine)), strength, 0)


class Backgrounds:
    """Backgrounds by index, from a folder if there is one, else drawn."""

    def __init__(self, folder: str | None, seed: int, clutter: int) -> None:
        self._images = None if folder is None else ImageFolder(folder)
        self._seed, self._clutter = seed, clutter
        self._kept: OrderedDict[int, Background] = OrderedDict()

    def __len__(self) -> int:
        return NUM_BACKGROUNDS if self._images is None else len(self._images)

    def __getitem__(self, i: int) -> Background:
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        if self._images is None:
            image = draw(generator_for(STREAM, self._seed, i), self._clutter)
        else:
            image = np.ascontiguousarray(self._images.image(i)[..., :3])
        levels = [image]
        for _ in range(LEVELS - 1):
            levels.append(cv2.pyrDown(levels[-1]))
        self._kept[i] = Background(tuple(levels), np.array(cv2.mean(image)[:3]))
        if len(self._kept) > CACHED_BACKGROUNDS:
            self._kept.popitem(last=False)
        return self._kept[i]
