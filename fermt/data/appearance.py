"""Changes of how a crop looks, beyond the paper's recipe: contrast, color, blur, noise, and parts that are hidden."""

from __future__ import annotations

import cv2
import numpy as np

from ..boxes import Box

LARGEST_BLUR = 0.06  # of the crop's side: the length of a motion blur, twice the sigma of an unfocused one
HIDDEN_SIDES = (0.3, 0.8)  # of the target's sides: what a patch that passes in front of it covers
HALF_GREY = 128.0


def recolored(image: np.ndarray, contrast: float, color: float, generator: np.random.Generator) -> np.ndarray:
    """A crop (H, W, 3) uint8 whose contrast changes by up to `contrast`, and each channel's gain by up to `color`."""
    gains = generator.uniform(1 - contrast, 1 + contrast) * (1 + generator.uniform(-color, color, 3))
    offset = HALF_GREY * (1 - gains)
    values = np.arange(256)[:, None] * gains + offset
    return cv2.LUT(image, np.clip(np.rint(values), 0, 255).astype(np.uint8)[None])


def blurred(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A crop that is moved during the exposure, out of focus, or enlarged from fewer pixels: one of the three."""
    size = image.shape[0]
    length = max(1.0, generator.uniform(0.2, 1.0) * LARGEST_BLUR * size)
    kind = int(generator.integers(3))
    if kind == 0:
        return _moved(image, length, generator.uniform(0, np.pi))
    if kind == 1:
        return cv2.GaussianBlur(image, (0, 0), 0.5 * length)
    small = max(8, round(size / generator.uniform(1.5, 3.0)))
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR)


def noisy(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """A crop with Gaussian noise, of a standard deviation of at most `deviation` grey levels."""
    noise = generator.standard_normal(image.shape, np.float32) * (deviation * generator.random())
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def hidden(image: np.ndarray, box: Box, generator: np.random.Generator) -> np.ndarray:
    """A crop in which a patch taken from elsewhere in it covers a part of the target at `box` (xywh, in [0, 1])."""
    size = image.shape[0]
    sides = np.array(box[2:]) * size * generator.uniform(*HIDDEN_SIDES, 2)
    width, height = (int(np.clip(side, 2, size // 2)) for side in sides)
    middle = np.array(box[:2]) * size + np.array(box[2:]) * size * generator.random(2)
    left, top = (int(np.clip(m - s / 2, 0, size - s)) for m, s in zip(middle, (width, height), strict=True))
    from_left, from_top = (int(generator.integers(0, size - s + 1)) for s in (width, height))
    covered = image.copy()
    covered[top : top + height, left : left + width] = image[
        from_top : from_top + height, from_left : from_left + width
    ]
    return covered


def _moved(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    reach = 0.5 * length * np.array((np.cos(angle), np.sin(angle)))
    ends = [tuple(int(v) for v in np.rint((half + sign * reach) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    total = float(kernel.sum())
    return image if total == 0 else cv2.filter2D(image, -1, kernel / total)
