"""Brightening of dark images, which are unlike those that models are trained on."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .images import Image

SAMPLES = 1024  # pixels of an image that are looked at
BRIGHT_SHARE = 0.98  # of a dark image's values are below its bright end: a lamp may be above
DARK_BELOW = 128  # bright ends of dark images, which become this
LARGEST_FACTOR = 8.0


def brighten(image: Image) -> Image:
    """Returns a dark image multiplied so that its bright end is `DARK_BELOW`, at most 8 times; any other as it is.

    An image is dark if 98 % of the values of about a thousand of its pixels are below 128. One factor serves all
    channels.

    Args:
        image: as `check_image` takes it; it is not changed. One on a GPU is waited for.
    """
    height, width = image.shape[:2]
    step = max(1, round((height * width / SAMPLES) ** 0.5))
    sample = image[::step, ::step]
    values = sample.cpu().numpy() if isinstance(sample, Tensor) else sample
    bright = _bright_end(values[..., :3] if values.ndim == 3 else values)
    if bright >= DARK_BELOW:
        return image
    factor = min(DARK_BELOW / max(bright, 1), LARGEST_FACTOR)
    table = np.minimum(np.arange(256) * factor + 0.5, 255).astype(np.uint8)
    if isinstance(image, Tensor):
        return torch.from_numpy(table).to(image.device)[image.int()]
    return cv2.LUT(np.ascontiguousarray(image), table).reshape(image.shape)


def _bright_end(values: np.ndarray) -> int:
    """The value below which `BRIGHT_SHARE` of them are."""
    flat = values.ravel()
    index = int(len(flat) * BRIGHT_SHARE)
    return int(np.partition(flat, index)[index])
