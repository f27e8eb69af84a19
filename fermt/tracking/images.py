"""Checks of images for trackers, and conversion to RGB."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EXPECTED = "a uint8 array (H, W, 3), RGB or BGR, (H, W, 4) with alpha, or (H, W) or (H, W, 1), grayscale"


def _gray_to_rgb(crop: np.ndarray) -> np.ndarray:
    return np.repeat(crop.reshape(*crop.shape[:2], 1), 3, axis=2)


# Conversion by number of channels; OpenCV drops the last dimension of grayscale crops.
_TO_COLOR: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: _gray_to_rgb,
    3: lambda crop: crop,
    4: lambda crop: crop[..., :3],
}


def check_image(image: np.ndarray) -> tuple[int, int]:
    """Returns height and width of an image that `to_rgb` can convert.

    Raises:
        TypeError, ValueError: it has another type or form, or is smaller than 2 x 2 pixels.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image must be {EXPECTED}; got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"an image must be {EXPECTED}; got dtype {image.dtype}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in _TO_COLOR or min(image.shape[:2]) < 2:
        raise ValueError(f"an image must be {EXPECTED}, at least 2 x 2 pixels; got shape {image.shape}")
    return image.shape[0], image.shape[1]


def to_rgb(crop: np.ndarray, bgr: bool) -> np.ndarray:
    """Converts a crop to contiguous (S, S, 3) RGB: repeats grayscale, drops alpha, reverses the channels if `bgr`."""
    color = _TO_COLOR[crop.shape[2] if crop.ndim == 3 else 1](crop)
    return np.ascontiguousarray(color[..., ::-1] if bgr else color)
