"""Rules in which toolkits differ: first frames, invalid ground truth, invalid predictions, lengths, averages.

A rule is a function and its description in reports.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..datasets.benchmark import TestSequence


class RefusedError(ValueError):
    """A result or ground truth that the toolkit of a protocol refuses; the message has the frame and the reason."""


class Rule(NamedTuple):
    """A function and its description."""

    description: str
    apply: Callable[..., Any]


class FrameKind(enum.IntEnum):
    """Kinds of frames."""

    SCORED = 0
    ABSENT = 1  # the target is annotated as not visible
    INVALID_TRUTH = 2  # the target is not annotated as invisible, but its true box has no area or is NaN
    COVERED = 3  # the target is fully covered; not counted
    FIRST = 4  # the box is given; not counted


UNCOUNTED = (FrameKind.COVERED, FrameKind.FIRST)


# Kinds of frames: (sequence) -> (N,) int of FrameKind.


def _cover_above_zero(sequence: TestSequence) -> np.ndarray:
    cover = np.ones(len(sequence.boxes)) if sequence.cover is None else sequence.cover
    return np.where(cover > 0, FrameKind.SCORED, FrameKind.COVERED)


def _with_positive(sequence: TestSequence, columns: slice) -> np.ndarray:
    """Kinds of frames if these columns of the ground truth must be positive."""
    kinds = np.where((sequence.boxes[:, columns] > 0).all(1), FrameKind.SCORED, FrameKind.INVALID_TRUTH)
    return kinds if sequence.visible is None else np.where(sequence.visible, kinds, FrameKind.ABSENT)


COVER_ABOVE_ZERO = Rule("frames whose cover is 0 are left out: they are neither hits nor misses", _cover_above_zero)
SIZE_ABOVE_ZERO = Rule(
    "invalid are frames whose target is marked as not visible, or whose true box is without area; they stay in the "
    "denominator",
    lambda sequence: _with_positive(sequence, slice(2, 4)),
)
ALL_ABOVE_ZERO = Rule(
    "invalid are frames whose target is marked as absent, or whose true x, y, w, h are not all above 0; they stay in "
    "the denominator",
    lambda sequence: _with_positive(sequence, slice(0, 4)),
)
ALL_SCORED = Rule(
    "no frame is invalid: a true box without area is scored as any other",
    lambda sequence: np.full(len(sequence.boxes), FrameKind.SCORED),
)


# The first frame: changes (boxes, truth, kinds) in place.


def _first_replaced(boxes: np.ndarray, truth: np.ndarray, kinds: np.ndarray) -> None:
    boxes[:1] = truth[:1]


def _first_left_out(boxes: np.ndarray, truth: np.ndarray, kinds: np.ndarray) -> None:
    kinds[:1] = FrameKind.FIRST


FIRST_REPLACED = Rule("counted, its box replaced by the true one", _first_replaced)
FIRST_LEFT_OUT = Rule("left out", _first_left_out)


# Preparation of both boxes and ground truth: (boxes, sequence) -> boxes.


def _clipped(boxes: np.ndarray, sequence: TestSequence) -> np.ndarray:
    """Clips boxes to the image. A corner outside is moved to the border without reducing the size by the move."""
    if sequence.resolution is None:
        return boxes
    border = np.array(sequence.resolution, np.float64)
    corner = np.clip(boxes[:, :2], 0, border)
    return np.hstack([corner, np.clip(boxes[:, 2:], 0, border - corner)])


UNCHANGED = Rule("neither clipped to the image nor rounded", lambda boxes, sequence: boxes)
CLIPPED = Rule(
    "predictions and truth are clipped to the image, where the data set has its size; a corner outside is moved to the "
    "border, and the box keeps its size",
    _clipped,
)
ROUNDED = Rule(
    "predictions and truth are rounded to whole pixels, halves to even", lambda boxes, sequence: boxes.round()
)


# Ground truth: (truth), RefusedError if it is not accepted.


def _without_nan(truth: np.ndarray) -> None:
    _refuse(np.isnan(truth).any(1), truth, "a true box without NaN")


ANY_TRUTH = Rule("true boxes may be NaN", lambda truth: None)
TRUTH_WITHOUT_NAN = Rule("a sequence with NaN in its truth is refused", _without_nan)


# Invalid predictions: (boxes, truth) -> boxes, for the frames that both have.


def _finite(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    _refuse(~np.isfinite(boxes).all(1), boxes, "four finite numbers")
    return boxes


def _previous_for_zero(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    _refuse(np.any(boxes[:, 2:] < 0, axis=1), boxes, "a size that is not negative")
    return _previous(_finite(boxes, truth), (boxes[:, 2:] == 0).any(1), truth)


def _previous_for_bad(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return _previous(boxes, np.isnan(boxes).any(1) | (boxes[:, 2:] <= 0).any(1), truth)


def _previous(boxes: np.ndarray, bad: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Replaces bad boxes by the last good one; those of the first frame and of frames without ground truth stay."""
    bad = bad & ~np.isnan(truth).any(1)
    return boxes[np.maximum.accumulate(np.where(bad, 0, np.arange(len(boxes))))]


ANY_BOX = Rule("boxes that are NaN or without area are misses", lambda boxes, truth: boxes)
FINITE_BOXES = Rule("a result with NaN is refused; a box without area is a miss", _finite)
PREVIOUS_FOR_ZERO = Rule(
    "a box whose width or height is 0 is replaced by the one of the frame before; a result with NaN or a negative size "
    "is refused",
    _previous_for_zero,
)
PREVIOUS_FOR_BAD = Rule(
    "a box that is NaN, or whose width or height is not above 0, is replaced by the one of the frame before",
    _previous_for_bad,
)


# Lengths: (boxes, frames), RefusedError if they do not fit. Surplus boxes are cut off, missing ones are filled in.


def _same_length(count: int, frames: int) -> None:
    if count != frames:
        raise RefusedError(f"expected {frames} boxes, one for each frame, got {count}")


def _at_least_as_long(count: int, frames: int) -> None:
    if count < frames:
        raise RefusedError(f"expected at least {frames} boxes, one for each frame, got {count}")


SAME_LENGTH = Rule("a result that is not as long as the truth is refused", _same_length)
AT_LEAST_AS_LONG = Rule("a result that is too long is cut, one that is too short is refused", _at_least_as_long)
FILLED_WITH_ZEROS = Rule(
    "a result that is too long is cut, one that is too short gets boxes of zeros", lambda count, frames: None
)
FILLED_WITH_MISSES = Rule(
    "a result that is too long is cut, frames that one does not reach are misses", lambda count, frames: None
)


def _refuse(bad: np.ndarray, boxes: np.ndarray, expected: str) -> None:
    if bad.any():
        t = int(bad.argmax())
        raise RefusedError(f"expected {expected}, got {boxes[t].tolist()} in frame {t}")


# Aggregation: (sums (S, T), counts (S,), weights (B, S)) -> (B, T), for each of B weightings of S sequences.


def _pooled(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (weights @ sums) / (weights @ counts)[:, None]


def _averaged(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights @ (sums / counts[:, None])) / weights.sum(1)[:, None]


def _averaged_but_zero(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over sequences whose curve is not 0 everywhere; 0 if there is none."""
    weights = weights * (sums > 0).any(1)
    return (weights @ (sums / counts[:, None])) / np.maximum(weights.sum(1), 1)[:, None]


POOLED = Rule("the mean over the frames of all sequences together", _pooled)
AVERAGED = Rule("the mean over sequences, each the mean over its frames", _averaged)
AVERAGED_BUT_ZERO = Rule(
    "the mean over sequences, each the mean over its frames; those whose whole curve is 0 are left out of that curve",
    _averaged_but_zero,
)
