"""What a tracker takes for an image, and its pixels as RGB."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EXPECTED = "a uint8 array (H, W, 3), RGB or BGR, (H, W, 4) with alpha, or (H, W) or (H, W, 1), grey"


def _grey(crop: np.ndarray) -> np.ndarray:
    return np.repeat(crop.reshape(*crop.shape[:2], 1), 3, axis=2)


# What is done with a crop of so many channels; OpenCV gives grey ones without their last dimension.
_TO_COLOUR: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: _grey,
    3: lambda crop: crop,
    4: lambda crop: crop[..., :3],
}


def check_image(image: np.ndarray) -> tuple[int, int]:
    """Height and width of an image that `to_rgb` knows.

    Raises:
        TypeError, ValueError: it is not one, or smaller than 2 x 2 pixels; the message says what it is.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image must be {EXPECTED}; got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"an image must be {EXPECTED}; got dtype {image.dtype}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in _TO_COLOUR or min(image.shape[:2]) < 2:
        raise ValueError(f"an image must be {EXPECTED}, at least 2 x 2 pixels; got shape {image.shape}")
    return image.shape[0], image.shape[1]


def to_rgb(crop: np.ndarray, bgr: bool) -> np.ndarray:
    """A crop as contiguous (S, S, 3) RGB: grey three times, alpha left out, channels turned round if `bgr`."""
    colour = _TO_COLOUR[crop.shape[2] if crop.ndim == 3 else 1](crop)
    return np.ascontiguousarray(colour[..., ::-1] if bgr else colour)
