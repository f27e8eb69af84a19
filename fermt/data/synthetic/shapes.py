"""Random shapes, drawn as masks that fill a square."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Generator = np.random.Generator
BORDER = 2  # transparent pixels around a shape, for interpolation of its edge
_SHIFT = 4  # points are given to OpenCV in sixteenths of a pixel


def _fill(points: np.ndarray, size: int) -> np.ndarray:
    """Draws the polygon of points, (n, 2) in [-1, 1]."""
    mask = np.zeros((size, size), np.uint8)
    pixels = np.round(((points + 1) * 0.5 * size - 0.5) * 2**_SHIFT).astype(np.int32)
    return cv2.fillPoly(mask, [pixels], 255, lineType=cv2.LINE_AA, shift=_SHIFT)


def _around(radii: np.ndarray) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return (radii / radii.max())[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)


def polygon(rng: Generator, size: int) -> np.ndarray:
    """Draws an irregular polygon."""
    return _fill(_around(rng.uniform(0.45, 1, int(rng.integers(3, 9)))), size)


def star(rng: Generator, size: int) -> np.ndarray:
    """Draws a star."""
    points = int(rng.integers(3, 8))
    return _fill(_around(np.tile([1, rng.uniform(0.35, 0.7)], points)), size)


def blob(rng: Generator, size: int) -> np.ndarray:
    """Draws a smooth closed curve."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    orders = np.arange(1, 6)
    heights = rng.normal(0, 0.25, 5) / orders**0.7
    waves = np.cos(angles[:, None] * orders + rng.uniform(0, 2 * np.pi, 5)) @ heights
    return _fill(_around(np.maximum(1 + waves, 0.3)), size)


def superellipse(rng: Generator, size: int) -> np.ndarray:
    """Draws a shape between a diamond, an ellipse and a rectangle."""
    angles, power = np.linspace(0, 2 * np.pi, 64, endpoint=False), 2 / rng.uniform(1, 8)
    cos, sin = np.cos(angles), np.sin(angles)
    return _fill(np.stack((np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power), axis=1), size)


def glyph(rng: Generator, size: int) -> np.ndarray:
    """Draws strokes between points of a grid, like a letter."""
    mask = np.zeros((size, size), np.uint8)
    width = max(2, round(size * rng.uniform(0.1, 0.2)))
    places = np.linspace(width, size - 1 - width, 3)
    corners = rng.permutation(9)[: int(rng.integers(4, 7))]
    points = np.round(np.stack((places[corners % 3], places[corners // 3]), axis=1)).astype(np.int32)
    cv2.polylines(mask, [points], bool(rng.integers(2)), 255, width, cv2.LINE_AA)
    if rng.random() < 0.4:
        middle = size // 2
        cv2.ellipse(mask, (middle, middle), (size // 3, size // 3), 0, 0, int(rng.integers(180, 361)), 255, width)
    return mask


def compound(rng: Generator, size: int) -> np.ndarray:
    """Draws ellipses joined to the center by lines."""
    mask = np.zeros((size, size), np.uint8)
    half = size / 2
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(0.7, 1.3, 2) * half
        axes = (int(half * rng.uniform(0.2, 0.6)), int(half * rng.uniform(0.2, 0.6)))
        angle = float(rng.uniform(0, 180))
        cv2.line(mask, (int(half), int(half)), (int(x), int(y)), 255, max(2, size // 8), cv2.LINE_AA)
        cv2.ellipse(mask, (int(x), int(y)), axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
    return mask


SHAPES: tuple[Callable[[Generator, int], np.ndarray], ...] = (polygon, star, blob, superellipse, glyph, compound)


def shape(rng: Generator, size: int) -> np.ndarray:
    """Draws a random shape, (size, size) uint8, 255 inside, that touches all sides of the square within the border."""
    return fitted(SHAPES[rng.integers(len(SHAPES))](rng, size), size)


def fitted(image: np.ndarray, size: int) -> np.ndarray:
    """Stretches the opaque part of a mask, (H, W), or image, (H, W, 4), to the square within the border."""
    alpha = image if image.ndim == 2 else image[..., 3]
    x, y, w, h = cv2.boundingRect((alpha > 127).astype(np.uint8))
    inner = size - 2 * BORDER
    cut = cv2.resize(image[y : y + h, x : x + w], (inner, inner), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(cut, *(BORDER,) * 4, cv2.BORDER_CONSTANT)
