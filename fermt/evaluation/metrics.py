"""Metrics of single frames and counts over the frames of a sequence; boxes are (N, 4) float64, xywh in pixels.

The order of operations is that of each toolkit, because errors can equal a threshold to the last bit.
"""

from __future__ import annotations

import numpy as np


def overlap(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union, (N,); NaN if the union is empty or a box is NaN.

    As in all toolkits but GOT-10k's, the end of a box is its last pixel, one less. This cancels but for the last bit,
    which decides whether the overlap of a box with itself, as in every first frame, is greater than 1.
    """
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] - 1, truth[:, :2] + truth[:, 2:] - 1)
    shared = _area(high - low + 1)
    with np.errstate(invalid="ignore"):
        return shared / (boxes[:, 2:].prod(1) + truth[:, 2:].prod(1) - shared)


def got10k_overlap(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union, (N,), computed without last pixels; at most 1, and 0 if the union is empty."""
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    shared = _area(high - low)
    either = boxes[:, 2:].prod(1) + truth[:, 2:].prod(1) - shared
    return np.minimum(shared / (either + np.finfo(np.float64).eps), 1)


def _area(size: np.ndarray) -> np.ndarray:
    """Areas, (N,), of widths and heights, (N, 2); 0 if one is negative, where boxes are apart."""
    return np.maximum(size, 0).prod(1)


def center_error(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of the centers in pixels, (N,)."""
    return _length(_centers(boxes) - _centers(truth))


def normalized_error(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of the centers in sizes of the true box, (N,): centers are scaled, then subtracted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _length(_centers(boxes) / truth[:, 2:] - _centers(truth) / truth[:, 2:])


def normalized_difference(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of the centers in sizes of the true box, (N,): the difference is scaled twice, then multiplied."""
    apart, size = _centers(truth) - _centers(boxes), truth[:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((apart / size * apart / size).sum(1))


def has_box(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """TrackingNet's coverage, (N,): 1 if the sum of the four numbers of a box is positive, else 0."""
    return (boxes[:, 3] + boxes[:, 2] + boxes[:, 0] + boxes[:, 1] > 0).astype(np.float64)


def _centers(boxes: np.ndarray) -> np.ndarray:
    """Centers, (N, 2), in indices of pixels, hence (w - 1) / 2 as in the toolkits."""
    return boxes[:, :2] + 0.5 * (boxes[:, 2:] - 1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(1))


def count_above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Number of values, (N,), greater than each threshold, (T,); NaN is not."""
    return (values[:, None] > thresholds).sum(0)


def count_at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Number of values, (N,), at least each threshold, (T,); NaN is not."""
    return (values[:, None] >= thresholds).sum(0)


def count_at_most(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Number of values, (N,), at most each threshold, (T,); NaN is not."""
    return (values[:, None] <= thresholds).sum(0)


def total(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Sum of values, (N,), as (1,); thresholds are not used."""
    return values.sum(keepdims=True)


def mean(thresholds: np.ndarray) -> np.ndarray:
    """Weights, (T,), for the mean of the points of a curve."""
    return np.full(len(thresholds), 1 / len(thresholds))


def trapezoid(thresholds: np.ndarray) -> np.ndarray:
    """Weights, (T,), for the area below a curve by the trapezoidal rule, over its width."""
    steps = np.diff(thresholds) / (thresholds[-1] - thresholds[0])
    return (np.append(steps, 0) + np.insert(steps, 0, 0)) / 2


def point_at(threshold: float, thresholds: np.ndarray) -> np.ndarray:
    """Weights, (T,), that select the point of a curve at a threshold."""
    weights = np.isclose(thresholds, threshold, rtol=0, atol=1e-9).astype(np.float64)
    if weights.sum() != 1:
        raise ValueError(f"no point of the curve is at {threshold}: {thresholds.tolist()}")
    return weights
