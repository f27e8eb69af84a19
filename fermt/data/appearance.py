"""Augmentations of a crop's appearance beyond the paper's recipe: contrast, color, blur, noise and occlusion."""

from __future__ import annotations

import cv2
import numpy as np

from ..boxes import Box

LARGEST_BLUR = 0.06  # length of motion blur, or twice the sigma of defocus, over the crop's side
HIDDEN_SIDES = (0.3, 0.8)  # sides of the patch that hides the target, over the target's
MID_GRAY = 128.0


def recolored(image: np.ndarray, contrast: float, color: float, generator: np.random.Generator) -> np.ndarray:
    """Changes the contrast of a crop, (H, W, 3) uint8, by up to `contrast`, its channels' gains by up to `color`."""
    gains = generator.uniform(1 - contrast, 1 + contrast) * (1 + generator.uniform(-color, color, 3))
    offset = MID_GRAY * (1 - gains)
    values = np.arange(256)[:, None] * gains + offset
    return cv2.LUT(image, np.clip(np.rint(values), 0, 255).astype(np.uint8)[None])


def blurred(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blurs a crop, (S, S, 3) uint8, by one of motion blur, defocus and enlargement from fewer pixels."""
    size = image.shape[0]
    length = max(1.0, generator.uniform(0.2, 1.0) * LARGEST_BLUR * size)
    kind = int(generator.integers(3))
    if kind == 0:
        return _motion_blur(image, length, generator.uniform(0, np.pi))
    if kind == 1:
        return cv2.GaussianBlur(image, (0, 0), 0.5 * length)
    small = max(8, round(size / generator.uniform(1.5, 3.0)))
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR)


def noisy(image: np.ndarray, largest_std: float, generator: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise with a standard deviation of at most `largest_std` gray levels to a crop."""
    noise = generator.standard_normal(image.shape, np.float32) * (largest_std * generator.random())
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def hidden(image: np.ndarray, box: Box, generator: np.random.Generator) -> np.ndarray:
    """Covers a part of the target at `box`, xywh in [0, 1], with a patch from elsewhere in the crop."""
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


def _motion_blur(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    reach = 0.5 * length * np.array((np.cos(angle), np.sin(angle)))
    ends = [tuple(int(v) for v in np.rint((half + sign * reach) * 16)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    total = float(kernel.sum())
    return image if total == 0 else cv2.filter2D(image, -1, kernel / total)
