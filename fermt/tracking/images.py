"""Checks of images for trackers, and conversion to RGB."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Image = np.ndarray | Tensor
EXPECTED = "a uint8 array or tensor (H, W, 3), RGB or BGR, (H, W, 4) with alpha, or (H, W) or (H, W, 1), grayscale"
CPU = torch.device("cpu")


def _gray_to_rgb(crop: np.ndarray) -> np.ndarray:
    return np.repeat(crop.reshape(*crop.shape[:2], 1), 3, axis=2)


# Conversion by number of channels; OpenCV drops the last dimension of grayscale crops.
_TO_COLOR: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: _gray_to_rgb,
    3: lambda crop: crop,
    4: lambda crop: crop[..., :3],
}


def check_image(image: Image, device: torch.device = CPU) -> tuple[int, int]:
    """Returns height and width of an image that `to_rgb` or `to_tensor` can convert.

    Raises:
        TypeError, ValueError: it has another type or form, is smaller than 2 x 2 pixels, or is a tensor neither on the
            CPU nor on `device`, where the model is.
    """
    if not isinstance(image, (np.ndarray, Tensor)):
        raise TypeError(f"an image must be {EXPECTED}; got {type(image).__name__}")
    if image.dtype != (np.uint8 if isinstance(image, np.ndarray) else torch.uint8):
        raise TypeError(f"an image must be {EXPECTED}; got dtype {image.dtype}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in _TO_COLOR or min(image.shape[:2]) < 2:
        raise ValueError(f"an image must be {EXPECTED}, at least 2 x 2 pixels; got shape {tuple(image.shape)}")
    if isinstance(image, Tensor) and image.device not in (CPU, device):
        raise ValueError(f"an image must be on the CPU or where the model is, on {device}; got one on {image.device}")
    return image.shape[0], image.shape[1]


def to_rgb(crop: np.ndarray, bgr: bool) -> np.ndarray:
    """Converts a crop to contiguous (S, S, 3) RGB: repeats grayscale, drops alpha, reverses the channels if `bgr`."""
    color = _TO_COLOR[crop.shape[2] if crop.ndim == 3 else 1](crop)
    return np.ascontiguousarray(color[..., ::-1] if bgr else color)


def to_tensor(image: Image) -> Tensor:
    """The pixels of an image as a tensor (H, W, 3) where they are, channels in its own order, alpha dropped.

    It shares the image's memory, but that of arrays which torch does not take: read-only ones, or turned around.
    """
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image if image.flags.writeable and min(image.strides) >= 0 else image.copy())
    color = image[..., :3] if image.ndim == 3 else image.unsqueeze(2)
    return color.expand(-1, -1, 3)
