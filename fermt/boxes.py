"""Conversion and checks of boxes: xywh (corner, size), xyxy (two corners), cxcywh (center, size).

Coordinates are continuous: pixel k covers [k, k + 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

import torch
from torch import Tensor

LARGEST_SIDE = 1e8  # pixels of an initial box, so that whole numbers of pixels stay far below 2^31
Box = tuple[float, float, float, float]


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Converts boxes, (..., 4), from center and size to two corners."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((center - 0.5 * size, center + 0.5 * size), dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Converts boxes, (..., 4), from corner and size to two corners."""
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), dim=-1)


def clip_to_image(box: Box, height: int, width: int, margin: float) -> Box:
    """Clips an xywh box to the image, with at least `margin` pixels a side (the authors' rule)."""
    x, y, w, h = box
    margin = min(margin, float(width), float(height))
    left, right = min(max(0.0, x), width - margin), min(max(margin, x + w), width)
    top, bottom = min(max(0.0, y), height - margin), min(max(margin, y + h), height)
    return left, top, max(margin, right - left), max(margin, bottom - top)


def check_box(box: Sequence[float], height: int, width: int) -> Box:
    """Returns an xywh box in pixels as four floats; ValueError if it has no area or lies outside the image."""
    if isinstance(box, (Set, Mapping)):  # which have no order, or not that of x, y, w, h
        raise ValueError(f"a box is four numbers (x, y, w, h) in pixels, got {box!r}")
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"a box is four numbers (x, y, w, h) in pixels, got {box!r}") from None
    if any(isinstance(value, (str, bytes)) for value in (box, *box)):  # which float() also accepts
        raise ValueError(f"a box is four numbers (x, y, w, h) in pixels, got {box!r}")
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ValueError(f"a box is four finite numbers (x, y, w, h) in pixels, got {(x, y, w, h)}")
    if w <= 0 or h <= 0:
        raise ValueError(f"a box must have positive width and height, got (x, y, w, h) = {(x, y, w, h)}")
    if max(w, h) > LARGEST_SIDE:
        raise ValueError(f"a box must be at most {LARGEST_SIDE:.0e} pixels a side, got (x, y, w, h) = {(x, y, w, h)}")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise ValueError(f"box (x, y, w, h) = {(x, y, w, h)} lies outside the image of {width} x {height} pixels")
    return x, y, w, h
