"""Objects: a picture with alpha, its outline, and objects that look like another."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .images import ImageFolder
from .layers import premultiplied
from .shapes import BORDER, fitted, shape
from .textures import CHANGES, change_apart, coloured, palette, pattern

Generator = np.random.Generator
SIZE = 128  # pixels a side of an object's picture
LEVELS = 3  # each half as large as the one before
SAMPLES = 12  # points a side of the grid by which an object's visible part is measured


class Sprite(NamedTuple):
    """An object's picture. Its own coordinates run from -1 to 1 over the object, whatever its width and height."""

    levels: tuple[np.ndarray, ...]  # (S, S, 4) uint8, premultiplied RGBA: SIZE pixels a side, and smaller
    outline: np.ndarray  # (n, 2) float32, x and y: the outermost pixels' centres, in one or more closed loops
    after: np.ndarray  # (n,) int: the point that follows each
    samples: np.ndarray  # (m, 2) float32: points of it, evenly spread
    aspect: float  # width over height that it has by nature


class Look(NamedTuple):
    """What a sprite is made of, and what a lookalike takes over."""

    alpha: np.ndarray  # (SIZE, SIZE) uint8
    colours: np.ndarray  # (SIZE, SIZE, 3) uint8
    aspect: float
    image: int = -1  # of the folder that it came from


def to_pixels(points: np.ndarray, size: int) -> np.ndarray:
    """An object's own coordinates as pixels, counted at their centres, of a picture of `size`."""
    scale = size / SIZE
    return (points + 1) * (0.5 * (SIZE - 2 * BORDER) * scale) + (BORDER * scale - 0.5)


def _from_pixels(pixels: np.ndarray) -> np.ndarray:
    return ((pixels + 0.5 - BORDER) / (0.5 * (SIZE - 2 * BORDER)) - 1).astype(np.float32)


HALF_PIXEL = 1 / (SIZE - 2 * BORDER)  # of the largest level, in an object's own coordinates


def sprite(look: Look) -> Sprite:
    """A look made ready to be drawn."""
    levels = [premultiplied(look.colours, look.alpha)]
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


def drawn(rng: Generator, beside: np.ndarray | None = None, contrast: float = 0.0) -> Look:
    """An object that no other seed gives: a shape, one or two textures, shading.

    Args:
        beside: (3,) mean colour, 0 to 255, from which its own shall differ by `contrast` of the largest distance,
            where some change of its colours has that.
    """
    alpha = shape(rng, SIZE)
    colours = coloured(pattern(rng, SIZE), palette(rng))
    if rng.random() < 0.5:  # a second material, on parts of a shape of their own
        other = coloured(pattern(rng, SIZE), palette(rng))
        cv2.copyTo(other, np.kron(shape(rng, SIZE // 2), np.ones((2, 2), np.uint8)), colours)
    if rng.random() < 0.7:
        colours = _shaded(rng, colours, alpha)
    if beside is not None:
        colours = _apart(colours, alpha, beside, contrast)
    return Look(alpha, colours, float(np.exp(rng.normal(0, 0.35))))


def _shaded(rng: Generator, colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Darker towards the edge and to one side, as a solid thing in the light."""
    depth = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    light = np.minimum(depth * (1 / (SIZE * rng.uniform(0.03, 0.15))), 1) * 0.5 + 0.5
    x, y = rng.uniform(-0.25, 0.25, 2)
    line = np.linspace(-1, 1, SIZE, dtype=np.float32)
    light = (light * (0.9 + x * line[None] + y * line[:, None])).astype(np.float32)
    return cv2.multiply(colours, cv2.merge((light, light, light)), dtype=cv2.CV_8U)


def _apart(colours: np.ndarray, alpha: np.ndarray, beside: np.ndarray, contrast: float) -> np.ndarray:
    mean = np.array(cv2.mean(colours, alpha)[:3])
    return np.ascontiguousarray(CHANGES[int(change_apart(mean, beside, contrast))](colours))


def pictured(rng: Generator, image: np.ndarray) -> Look:
    """An object from an image (H, W, 4): what is opaque of it; if all is, a drawn shape with a part of it."""
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
    """An object with another's texture and a shape of its own, or with its shape and texture in other colours."""
    if rng.random() < 0.5:
        return look._replace(alpha=shape(rng, SIZE))
    return look._replace(colours=coloured(cv2.cvtColor(look.colours, cv2.COLOR_RGB2GRAY), palette(rng)))


class Objects:
    """Where objects come from: a folder, if there is one, or the code that draws them."""

    def __init__(self, folder: str | None) -> None:
        self._images = None if folder is None else ImageFolder(folder)

    def look(self, rng: Generator, beside: np.ndarray, contrast: float, other: Look | None = None) -> Look:
        """One object; `beside` and `contrast`, as for `drawn`, do not change pictures.

        Args:
            other: a look from whose picture this one is not taken, if the folder has two.
        """
        if self._images is None:
            return drawn(rng, beside, contrast)
        i, count = int(rng.integers(len(self._images))), len(self._images)
        if other is not None and i == other.image and count > 1:
            i = (i + int(rng.integers(1, count))) % count
        return pictured(rng, self._images.image(i))._replace(image=i)
