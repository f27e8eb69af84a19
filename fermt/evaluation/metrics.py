"""What is measured of each frame, and what is counted of a sequence's frames; boxes are (N, 4) float64, xywh in pixels.

The formulas follow the order of each toolkit's arithmetic, for errors that lie on a threshold to the last bit.
"""

from __future__ import annotations

import numpy as np


def overlap(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) area that both boxes share over the area that either has; NaN where neither has any, or one is NaN.

    Ends are those of the last pixel, one less, as in all toolkits but GOT-10k's. It cancels, but for the last bit: that
    decides whether the overlap of a box with itself, which every first frame has, is greater than 1.
    """
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:] - 1, truth[:, :2] + truth[:, 2:] - 1)
    shared = _area(high - low + 1)
    with np.errstate(invalid="ignore"):
        return shared / (boxes[:, 2:].prod(1) + truth[:, 2:].prod(1) - shared)


def overlap_to_one(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`overlap` without that detour, at most 1, and 0 where neither box has any area."""
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    shared = _area(high - low)
    either = boxes[:, 2:].prod(1) + truth[:, 2:].prod(1) - shared
    return np.minimum(shared / (either + np.finfo(np.float64).eps), 1)


def _area(size: np.ndarray) -> np.ndarray:
    """(N,) of (N, 2) widths and heights, which are negative where boxes are apart."""
    return np.maximum(size, 0).prod(1)


def center_error(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) pixels between the centres."""
    return _length(_centers(boxes) - _centers(truth))


def scaled_error(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) distance of the centres in sizes of the true box; centres are scaled, then subtracted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _length(_centers(boxes) / truth[:, 2:] - _centers(truth) / truth[:, 2:])


def scaled_difference(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`scaled_error`, but the difference of the centres is scaled, one side of its square after the other."""
    apart, size = _centers(truth) - _centers(boxes), truth[:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((apart / size * apart / size).sum(1))


def answered(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) 1 where the four numbers of a box add up to more than 0, else 0: coverage, in TrackingNet's words."""
    return (boxes[:, 3] + boxes[:, 2] + boxes[:, 0] + boxes[:, 1] > 0).astype(np.float64)


def _centers(boxes: np.ndarray) -> np.ndarray:
    """(N, 2) of the pixel in the middle, hence less a half; (w - 1) / 2 is what the toolkits write."""
    return boxes[:, :2] + 0.5 * (boxes[:, 2:] - 1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(1))


def above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) how many of the (N,) values are greater than each threshold; NaN is not."""
    return (values[:, None] > thresholds).sum(0)


def reached(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) how many of the (N,) values are at least each threshold; NaN is not."""
    return (values[:, None] >= thresholds).sum(0)


def within(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) how many of the (N,) values are at most each threshold; NaN is not."""
    return (values[:, None] <= thresholds).sum(0)


def total(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(1,) the sum of the (N,) values, whatever the thresholds."""
    return values.sum(keepdims=True)


def mean(thresholds: np.ndarray) -> np.ndarray:
    """(T,) weights that make the mean of a curve's points."""
    return np.full(len(thresholds), 1 / len(thresholds))


def trapezoid(thresholds: np.ndarray) -> np.ndarray:
    """(T,) weights that make the area below a curve by the trapezoidal rule, over the width that it spans."""
    steps = np.diff(thresholds) / (thresholds[-1] - thresholds[0])
    return (np.append(steps, 0) + np.insert(steps, 0, 0)) / 2


def at(threshold: float, thresholds: np.ndarray) -> np.ndarray:
    """(T,) weights that read a curve at one of its points."""
    weights = np.isclose(thresholds, threshold, rtol=0, atol=1e-9).astype(np.float64)
    if weights.sum() != 1:
        raise ValueError(f"no point of the curve is at {threshold}: {thresholds.tolist()}")
    return weights
