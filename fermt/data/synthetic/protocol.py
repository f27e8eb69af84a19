"""The paper's placement of training crops around targets, for one box or many."""

from __future__ import annotations

import numpy as np

from ..crops import target_square

MAX_GAP = 200  # frames between template and search region
CENTER_JITTER, SCALE_JITTER = 3.0, 0.25  # of the search region
FLIP, GRAY, BRIGHTNESS = 0.5, 0.05, 0.2


def jittered(rng: np.random.Generator, boxes: np.ndarray) -> np.ndarray:
    """Jitters boxes, (..., 4) xywh, around which search regions are cut."""
    size = boxes[..., 2:] * np.exp(rng.normal(0, SCALE_JITTER, boxes[..., 2:].shape))
    reach = np.sqrt(size.prod(axis=-1, keepdims=True)) * CENTER_JITTER
    center = boxes[..., :2] + 0.5 * boxes[..., 2:] + reach * rng.uniform(-0.5, 0.5, size.shape)
    return np.concatenate((center - 0.5 * size, size), axis=-1)


def squares(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Computes the `target_square` of each box, (..., 4) xywh -> (..., 3) left, top, side."""
    cut = [target_square(tuple(box), factor) for box in boxes.reshape(-1, 4).tolist()]
    return np.array(cut).reshape(*boxes.shape[:-1], 3)


def in_square(boxes: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Maps boxes, (..., 4) xywh, from pixels to fractions of squares, (..., 3), float32."""
    moved = np.concatenate((boxes[..., :2] - square[..., :2], boxes[..., 2:]), axis=-1)
    return (moved / square[..., 2:]).astype(np.float32)
