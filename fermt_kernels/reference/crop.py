"""Square crops of a frame, resized with the very numbers of OpenCV's bilinear interpolation on bytes."""

from __future__ import annotations

import torch
from torch import Tensor

WHOLE = 2048  # weights are in parts of it


def _taps(start: Tensor, side: Tensor, size: int, length: int) -> tuple[Tensor, Tensor]:
    """Of each output row (or column) the two rows of the image, and their weights: (B, size, 2) each, int64.

    The weight is 0, for black, outside the image, to which as in the authors' code its last row and column belong.
    """
    start, side = start.long()[:, None, None], side.long()[:, None, None]  # (B, 1, 1)
    # A tensor, for torch divides a number by a tensor in two roundings.
    scale = 1 / (torch.tensor(size, dtype=torch.float64) / side.double())
    outputs = torch.arange(size, dtype=torch.float64, device=start.device)[:, None]
    position = ((outputs + 0.5) * scale - 0.5).float()  # (B, size, 1)
    low = position.floor()
    second = ((position - low) * WHOLE).round().long()  # to nearest even
    weights = torch.cat((WHOLE - second, second), dim=2)
    places = start + (low.long() + torch.arange(2, device=start.device)).clamp(min=0).minimum(side - 1)
    inside = (places >= 0) & (places < length - 1) & (side > 0)
    return places.clamp(0, length - 1), weights * inside


def crop(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """Each square of the image resized to `size` pixels a side; black outside the image.

    Args:
        image: (H, W, 3) uint8.
        squares: (B, 3), integers: left, top and side in pixels. A side below 1 gives a black crop.
        size: side of the result in pixels, up to 4096.

    Returns:
        (B, size, size, 3) uint8, equal to cv2.resize with INTER_LINEAR on the squares with black around the image.
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
    """`crop`, written into `out`."""
    out.copy_(crop(image, squares, out.shape[1]))
