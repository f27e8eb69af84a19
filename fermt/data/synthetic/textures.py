"""Random textures: patterns of gray levels, colored by palettes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np

Generator = np.random.Generator
LEVELS = 256  # gray levels of a pattern, and colors of a palette


@functools.lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x, (1, size), and y, (size, 1), from -1 to 1."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    return line[None, :], line[:, None]


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scales values to bytes from 0 to 255."""
    low, high, _, _ = cv2.minMaxLoc(values)
    return cv2.convertScaleAbs(values - low, alpha=(LEVELS - 1) / max(high - low, 1e-6))


def _octaves(rng: Generator, size: int, coarsest: int, count: int) -> np.ndarray:
    total: np.ndarray = np.zeros((size, size), np.float32)
    weight = 1.0
    for octave in range(count):
        cells = min(size, coarsest * 2**octave)
        lattice = rng.random((cells, cells), np.float32)
        total = cv2.addWeighted(total, 1.0, cv2.resize(lattice, (size, size), interpolation=cv2.INTER_CUBIC), weight, 0)
        weight *= 0.55
    return total


def noise(rng: Generator, size: int) -> np.ndarray:
    """Draws smooth noise of several scales."""
    return _scaled(_octaves(rng, size, int(rng.integers(2, 7)), size.bit_length() - 3))


def stripes(rng: Generator, size: int) -> np.ndarray:
    """Draws wavy stripes."""
    x, y = _grid(size)
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(6, 22)
    phase = frequency * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform(0, 6) * np.sin(2 * y + rng.uniform(0, 6))
    sharpness = rng.uniform(1, 6)
    return cv2.convertScaleAbs(np.clip(0.5 + 0.5 * sharpness * np.sin(phase), 0, 1), alpha=LEVELS - 1)


def checker(rng: Generator, size: int) -> np.ndarray:
    """Draws a checkerboard."""
    cells = int(rng.integers(2, 7))
    odd = np.add.outer(np.arange(cells), np.arange(cells)) % 2
    board = np.clip(odd * 160 + rng.integers(0, 96, (cells, cells)), 0, LEVELS - 1).astype(np.uint8)
    return cv2.resize(board, (size, size), interpolation=cv2.INTER_NEAREST)


def gradient(rng: Generator, size: int) -> np.ndarray:
    """Draws a curved gradient."""
    x, y = _grid(size)
    angle, curve = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1)
    values = np.cos(angle) * x + np.sin(angle) * y + curve * ((x - rng.uniform(-1, 1)) ** 2 + y**2)
    return _scaled(values + 0.15 * _octaves(rng, size, 8, 2))


def spots(rng: Generator, size: int) -> np.ndarray:
    """Draws blurred spots."""
    values = _octaves(rng, size, int(rng.integers(4, 14)), 1)
    level = rng.uniform(0.35, 0.65)
    return cv2.convertScaleAbs(np.clip((values - level) * rng.uniform(4, 12) + 0.5, 0, 1), alpha=LEVELS - 1)


def patches(rng: Generator, size: int) -> np.ndarray:
    """Draws cells of uniform gray with bent borders."""
    cells = int(rng.integers(3, 6))
    values = rng.integers(0, LEVELS, (cells, cells)).astype(np.uint8)
    bend = rng.uniform(-1, 1, (2, 5, 5)).astype(np.float32)
    x, y = _grid(size)
    at_x, at_y = (
        (0.5 + 0.5 * line) * cells - 0.5 + cv2.resize(move, (size, size), interpolation=cv2.INTER_CUBIC)
        for line, move in zip((x, y), bend, strict=True)
    )
    return cv2.remap(values, at_x, at_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)


PATTERNS: tuple[Callable[[Generator, int], np.ndarray], ...] = (noise, stripes, checker, gradient, spots, patches)


def pattern(rng: Generator, size: int) -> np.ndarray:
    """Draws a random pattern, (size, size) uint8."""
    return PATTERNS[rng.integers(len(PATTERNS))](rng, size)


def palette(rng: Generator, saturation: float = 1.0) -> np.ndarray:
    """Draws a palette, (256, 3) uint8 RGB: two to four colors with similar hues, interpolated."""
    count = int(rng.integers(2, 5))
    hue = rng.uniform(0, 180) + rng.normal(0, 35, count)
    chroma = rng.uniform(0, 255, count) * saturation
    hsv = np.stack((hue % 180, chroma, rng.uniform(25, 255, count)), axis=-1).astype(np.uint8)
    colors = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)
    return cv2.resize(colors, (LEVELS, 1), interpolation=cv2.INTER_LINEAR)[0]


# Changes of colors, (..., 3), that keep the pattern of a texture, the mildest first.
CHANGES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda colors: colors,
    lambda colors: colors[..., [1, 2, 0]],
    lambda colors: colors[..., [2, 0, 1]],
    lambda colors: 255 - colors,
    lambda colors: 255 - colors[..., [1, 2, 0]],
    lambda colors: 255 - colors[..., [2, 0, 1]],
    lambda colors: colors // 3,
    lambda colors: 255 - colors // 3,
)


def contrasting_change(mean: np.ndarray, reference: np.ndarray, contrast: float) -> Callable[[np.ndarray], np.ndarray]:
    """The first of CHANGES that moves a mean color, (3,), far enough from `reference`, else the one that moves it most.

    Args:
        contrast: the smallest distance, over the distance between black and white.
    """
    distances = [np.linalg.norm(change(mean) - reference) / (255 * 3**0.5) for change in CHANGES]
    enough = (i for i, distance in enumerate(distances) if distance >= contrast)
    return CHANGES[next(enough, int(np.argmax(distances)))]


def colored(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Colors a pattern, (H, W), with a palette -> (H, W, 3) uint8."""
    return cv2.LUT(cv2.merge((values, values, values)), table[None])
