"""Objects: pictures with alpha and outlines, drawn or from images, and lookalikes."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .images import ImageFolder
from .layers import premultiplied
from .shapes import BORDER, fitted, shape
from .textures import colored, contrasting_change, palette, pattern

Generator = np.random.Generator
SIZE = 128  # pixels a side of an object's picture
LEVELS = 3  # of the image pyramid
SAMPLES = 12  # points a side of the grid that measures the visible part of an object


class Sprite(NamedTuple):
    """A picture of an object. Its own coordinates run from -1 to 1 over the object in both directions."""

    levels: tuple[np.ndarray, ...]  # (S, S, 4) uint8, premultiplied RGBA: SIZE pixels a side, and smaller
    outline: np.ndarray  # (n, 2) float32, x and y of the outermost pixels' centers, in one or more closed loops
    after: np.ndarray  # (n,) int, index of the point that follows each
    samples: np.ndarray  # (m, 2) float32, points evenly spread over the object
    aspect: float  # natural width over height


class Look(NamedTuple):
    """Shape and texture of an object, from which sprites and lookalikes are made."""

    alpha: np.ndarray  # (SIZE, SIZE) uint8
    colors: np.ndarray  # (SIZE, SIZE, 3) uint8
    aspect: float
    image: int = -1  # index of the image in the folder, if it came from one


def to_pixels(points: np.ndarray, size: int) -> np.ndarray:
    """Converts an object's own coordinates to pixel indices in a picture of `size`."""
    scale = size / SIZE
    return (points + 1) * (0.5 * (SIZE - 2 * BORDER) * scale) + (BORDER * scale - 0.5)


def _from_pixels(pixels: np.ndarray) -> np.ndarray:
    return ((pixels + 0.5 - BORDER) / (0.5 * (SIZE - 2 * BORDER)) - 1).astype(np.float32)


HALF_PIXEL = 1 / (SIZE - 2 * BORDER)  # half a pixel of the largest level in an object's own coordinates


def sprite(look: Look) -> Sprite:
    """Prepares a look for drawing."""
    levels = [premultiplied(look.colors, look.alpha)]
    for _ in range(LEVELS - 1):
        side = levels[-1].shape[0] // 2
        levels.append(cv2.resize(levels[-1], (side, side), interpolation=cv2.INTER_AREA))
    opaque = (look.alpha > 127).astype(np.uint8)
    contours, _ = cv2.findContours(opaque, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = _from_pixels(np.concatenate(contours)[:, 0])
    ends = np.cumsum([len(contour) for contour in contours])
    after = np.arange(1, len(outline) + 1)
    after[ends - 1] = np.concatenate(([0], ends[:-1]))
    step = SIZE // SAMPLES
    y, x = np.nonzero(opaque[step // 2 :: step, step // 2 :: step])
    samples = _from_pixels(np.stack((x, y), axis=1) * step + step // 2)
    return Sprite(tuple(levels), outline, after, samples if len(samples) else outline, look.aspect)


def drawn(rng: Generator, reference: np.ndarray | None = None, contrast: float = 0.0) -> Look:
    """Draws an object: a shape, one or two textures, shading.

    Args:
        reference: (3,) mean color, 0 to 255, from which the object's should differ.
        contrast: the smallest difference, over the largest possible one, if a change of colors reaches it.
    """
    alpha = shape(rng, SIZE)
    colors = colored(pattern(rng, SIZE), palette(rng))
    if rng.random() < 0.5:  # a second material on a part of another shape
        other = colored(pattern(rng, SIZE), palette(rng))
        cv2.copyTo(other, np.kron(shape(rng, SIZE // 2), np.ones((2, 2), np.uint8)), colors)
    if rng.random() < 0.7:
        colors = _shaded(rng, colors, alpha)
    if reference is not None:
        mean = np.array(cv2.mean(colors, alpha)[:3])
        colors = np.ascontiguousarray(contrasting_change(mean, reference, contrast)(colors))
    return Look(alpha, colors, float(np.exp(rng.normal(0, 0.35))))


def _shaded(rng: Generator, colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Darkens an object towards its edge and to one side."""
    depth = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    light = np.minimum(depth * (1 / (SIZE * rng.uniform(0.03, 0.15))), 1) * 0.5 + 0.5
    x, y = rng.uniform(-0.25, 0.25, 2)
    line = np.linspace(-1, 1, SIZE, dtype=np.float32)
    light = (light * (0.9 + x * line[None] + y * line[:, None])).astype(np.float32)
    return cv2.multiply(colors, cv2.merge((light, light, light)), dtype=cv2.CV_8U)


def pictured(rng: Generator, image: np.ndarray) -> Look:
    """Makes an object from an image, (H, W, 4): its opaque part, or if all is opaque, a drawn shape filled with it."""
    height, width = image.shape[:2]
    opaque = image[..., 3] > 127
    if opaque.mean() < 0.995:
        whole = fitted(image, SIZE)
        _, _, w, h = cv2.boundingRect(opaque.astype(np.uint8))
        return Look(np.ascontiguousarray(whole[..., 3]), np.ascontiguousarray(whole[..., :3]), w / h)
    side = max(2, int(min(height, width) * rng.uniform(0.3, 1)))
    left, top = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
    part = cv2.resize(image[top : top + side, left : left + side, :3], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return Look(shape(rng, SIZE), part, float(np.exp(rng.normal(0, 0.35))))


def lookalike(rng: Generator, look: Look) -> Look:
    """Makes an object with the texture of another and a new shape, or with its shape and texture in new colors."""
    if rng.random() < 0.5:
        return look._replace(alpha=shape(rng, SIZE))
    return look._replace(colors=colored(cv2.cvtColor(look.colors, cv2.COLOR_RGB2GRAY), palette(rng)))


class Objects:
    """Random objects, from images of a folder if there is one, else drawn."""

    def __init__(self, folder: str | None) -> None:
        self._images = None if folder is None else ImageFolder(folder)

    def look(self, rng: Generator, reference: np.ndarray, contrast: float, other: Look | None = None) -> Look:
        """Makes an object.

        Args:
            reference, contrast: as for `drawn`; they have no effect on images of a folder.
            other: a look whose image is not used again, if the folder has others.
        """
        if self._images is None:
            return drawn(rng, reference, contrast)
        i, count = int(rng.integers(len(self._images))), len(self._images)
        if other is not None and i == other.image and count > 1:
            i = (i + int(rng.integers(1, count))) % count
        return pictured(rng, self._images.image(i))._replace(image=i)
