"""Square crops around a target, and their normalization (the authors' `sample_target` and `Preprocessor`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from fermt_kernels.frame import MEAN, STD, crop

from ..boxes import Box

LARGEST_PADDED = 4096  # side in pixels; a larger square is cut without memory for its margins


class Square(NamedTuple):
    """The square of a crop in pixels of the image; it may reach outside."""

    left: int
    top: int
    side: int


class Crop(NamedTuple):
    """A square cut out of an image and resized."""

    image: np.ndarray  # (size, size, 3) uint8
    resize_factor: float  # pixels of the crop per pixel of the image
    side: int  # of the square, in pixels of the image
    margins: tuple[int, int, int, int]  # of the square outside the image: top, bottom, left, right

    @property
    def padding(self) -> np.ndarray:
        """A mask, (size, size) bool, of the part outside the image."""
        top, bottom, left, right = self.margins
        outside = np.ones((self.side, self.side))
        outside[top : self.side - bottom, left : self.side - right] = 0
        return cv2.resize(outside, self.image.shape[:2], interpolation=cv2.INTER_LINEAR).astype(bool)


def target_square(box: Box, factor: float) -> Square:
    """Computes the square of side ceil(factor * sqrt(w h)) around the center of a box, as for `fk.frame.crop`.

    Args:
        box: xywh in pixels.
        factor: side of the square over the square root of the box's area.

    Raises:
        ValueError: the box has no area.
    """
    x, y, w, h = box
    side = math.ceil(math.sqrt(max(w, 0) * max(h, 0)) * factor)
    if side < 1:
        raise ValueError(f"cannot crop around a box without area: (x, y, w, h) = {box}")
    return Square(round(x + 0.5 * w - 0.5 * side), round(y + 0.5 * h - 0.5 * side), side)


def meeting_square(box: Box, factor: float, height: int, width: int) -> Square:
    """Computes the `target_square` of a box and checks that it meets the image without its last row and column.

    Raises:
        ValueError: the box has no area, or the square does not meet the image.
    """
    square = left, top, side = target_square(box, factor)
    if min(left + side, width - 1) <= max(left, 0) or min(top + side, height - 1) <= max(top, 0):
        raise ValueError(f"the crop around (x, y, w, h) = {box} does not meet the image of {width} x {height} pixels")
    return square


def crop_target(image: np.ndarray, box: Box, factor: float, size: int) -> Crop:
    """Cuts the `target_square` of a box and resizes it bilinearly.

    Outside the image the crop is black. As in the authors' code, the image's last row and column count as outside if
    the square reaches beyond them.

    Args:
        image: (H, W) or (H, W, channels) uint8.
        box, factor: as for `target_square`.
        size: side of the result in pixels.

    Raises:
        ValueError: the box has no area, or the square does not meet the image.
    """
    return crop_square(image, meeting_square(box, factor, *image.shape[:2]), size)


def crop_square(image: np.ndarray, square: Square, size: int) -> Crop:
    """Cuts a `meeting_square` of an image and resizes it, as `crop_target` does."""
    height, width = image.shape[:2]
    left, top, side = square
    pad_left, pad_top = max(0, -left), max(0, -top)
    pad_right, pad_bottom = max(0, left + side - width + 1), max(0, top + side - height + 1)
    inside = image[top + pad_top : top + side - pad_bottom, left + pad_left : left + side - pad_right]
    margins = pad_top, pad_bottom, pad_left, pad_right
    if side > LARGEST_PADDED:
        return Crop(_crop_without_padding(image, square, size), size / side, side, margins)
    padded = cv2.copyMakeBorder(inside, *margins, cv2.BORDER_CONSTANT)
    return Crop(cv2.resize(padded, (size, size), interpolation=cv2.INTER_LINEAR), size / side, side, margins)


def _crop_without_padding(image: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The same crop, computed channel by channel without memory for its margins."""
    pixels = torch.from_numpy(np.array(image, order="C"))  # a copy, because torch needs writable memory
    channels, squares = pixels.view(*image.shape[:2], -1), torch.tensor([square], device="cpu")
    planes = (channels[..., i, None].expand(-1, -1, 3) for i in range(channels.shape[2]))
    return torch.cat([crop(plane, squares, size, backend="reference")[0, ..., :1] for plane in planes], dim=2).numpy()


def normalize(image: np.ndarray, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Scales an image to [0, 1] and normalizes it with ImageNet's statistics: (H, W, 3) uint8 RGB -> (1, 3, H, W)."""
    return normalize_batch(torch.from_numpy(np.ascontiguousarray(image)).unsqueeze(0).to(device), dtype=dtype)


def normalize_batch(images: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalizes images as `normalize`, on their device: (B, H, W, 3) uint8 RGB -> (B, 3, H, W)."""
    mean, std = (torch.tensor(values, dtype=dtype, device=images.device) for values in (MEAN, STD))
    return ((images.to(dtype) / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
