"""Sequences of annotated images, the common form of training data."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Annotation(NamedTuple):
    """The boxes of one sequence."""

    boxes: np.ndarray  # (N, 4) float64, xywh in pixels
    valid: np.ndarray  # (N,) bool: the target is visible, and its box is finite with positive width and height


class SequenceSet(Protocol):
    """A data set. A set of still images has sequences of one image each."""

    name: str
    is_video: bool

    def __len__(self) -> int:
        """Returns the number of sequences."""

    def annotation(self, i: int) -> Annotation:
        """Returns the boxes of sequence `i`."""

    def image(self, i: int, t: int) -> np.ndarray:
        """Reads frame `t` of sequence `i`, (H, W, 3) uint8 RGB; ImageError if it is missing or damaged."""


def valid_boxes(boxes: np.ndarray) -> np.ndarray:
    """Which boxes, (N, 4) xywh, are finite and have an area: (N,) bool."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
