"""The specification of square crops: bilinear interpolation in OpenCV's fixed-point arithmetic, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHT_ONE = 2048  # weights are integers; this is a weight of 1


def _taps(start: Tensor, side: Tensor, size: int, length: int) -> tuple[Tensor, Tensor]:
    """The two image rows (or columns) that each output row reads, and their weights: (B, size, 2) each, int64.

    Outside the image the weight is 0, which gives black. As in the authors' code, the image's last row and column count
    as outside.
    """
    start, side = start.long()[:, None, None], side.long()[:, None, None]  # (B, 1, 1)
    # Divided by a tensor: torch would round the quotient of a number and a tensor twice.
    scale = 1 / (torch.tensor(size, dtype=torch.float64, device=side.device) / side.double())
    outputs = torch.arange(size, dtype=torch.float64, device=start.device)[:, None]
    position = ((outputs + 0.5) * scale - 0.5).float()  # (B, size, 1)
    low = position.floor()
    second = ((position - low) * WEIGHT_ONE).round().long()  # to nearest even
    weights = torch.cat((WEIGHT_ONE - second, second), dim=2)
    indices = start + (low.long() + torch.arange(2, device=start.device)).clamp(min=0).minimum(side - 1)
    inside = (indices >= 0) & (indices < length - 1) & (side > 0)
    return indices.clamp(0, length - 1), weights * inside


def crop(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """Cuts squares out of an image and resizes them to `size` pixels a side; outside the image is black.

    Args:
        image: (H, W, 3) uint8.
        squares: (B, 3) integers: left, top and side in pixels. A side below 1 gives a black crop.
        size: side of the crops in pixels, up to 4096.

    Returns:
        (B, size, size, 3) uint8, equal to `cv2.resize` with INTER_LINEAR of the squares padded with black.
    """
    left, top, side = squares.unbind(1)
    (rows, row_weights), (columns, column_weights) = (
        _taps(start, side, size, length) for start, length in ((top, image.shape[0]), (left, image.shape[1]))
    )
    total = torch.full((len(squares), size, size, 3), 2, dtype=torch.int32, device=image.device)
    for i in range(2):
        line = torch.zeros_like(total)
        for j in range(2):
            pixels = image[rows[:, :, None, i], columns[:, None, :, j]]  # (B, size, size, 3)
            line += pixels.int() * column_weights[:, None, :, None, j].int()
        total += ((line >> 4) * row_weights[:, :, None, None, i].int()) >> 16
    return (total >> 2).to(torch.uint8)


def crop_forward(image: Tensor, squares: Tensor, out: Tensor) -> None:
    """Computes `crop` into `out` (B, S, S, 3)."""
    out.copy_(crop(image, squares, out.shape[1]))
