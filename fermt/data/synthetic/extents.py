"""Exact bounding boxes of closed outlines clipped to the frame."""

from __future__ import annotations

import numpy as np


def boxes_inside(outline: np.ndarray, after: np.ndarray, edge: np.ndarray, width: float, height: float) -> np.ndarray:
    """Computes the boxes, (..., 4) xywh, of outlines clipped to the frame; without area if nothing is inside.

    Args:
        outline: (..., n, 2) x and y in pixels.
        after: (n,) index of the point that follows each, in one or more loops.
        edge: (..., 2) pixels by which the object is wider than its outline, on each side.
        width, height: size of the frame.
    """
    frame = np.array([width, height], float)
    outline = np.asarray(outline, float)
    low, high = outline.min(axis=-2), outline.max(axis=-2)
    crossing = ((low < 0) | (high > frame)).any(axis=-1)
    low[crossing], high[crossing] = _cut(outline[crossing], after, frame)
    low, high = np.clip(low - edge, 0, frame), np.clip(high + edge, 0, frame)
    return np.concatenate((low, np.maximum(high - low, 0)), axis=-1)


def _cut(outline: np.ndarray, after: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest x and y of outlines, (m, n, 2), in the frame, (m, 2) each; reversed if there are none."""
    low, high = np.full((len(outline), 2), np.inf), np.full((len(outline), 2), -np.inf)
    following = outline[:, after]
    for axis in (0, 1):  # clip each line to the range of the other coordinate
        other = 1 - axis
        start, way = outline[..., other], following[..., other] - outline[..., other]
        level = way == 0
        past = np.stack((-start, frame[other] - start)) / np.where(level, 1, way)
        enter, leave = np.clip(past.min(axis=0), 0, 1), np.clip(past.max(axis=0), 0, 1)
        inside = np.where(level, (start >= 0) & (start <= frame[other]), enter < leave)
        enter, leave = np.where(level, 0, enter), np.where(level, 1, leave)
        line = following[..., axis] - outline[..., axis]
        ends = outline[..., axis] + np.stack((enter, leave)) * line
        low[:, axis] = np.where(inside, ends, np.inf).min(axis=(0, 2))
        high[:, axis] = np.where(inside, ends, -np.inf).max(axis=(0, 2))
    for corner in ((0.0, 0.0), (frame[0], 0.0), (0.0, frame[1]), (frame[0], frame[1])):
        covered = _covers(outline, following, corner)[:, None]
        low = np.where(covered, np.minimum(low, corner), low)
        high = np.where(covered, np.maximum(high, corner), high)
    outside = (low > frame).any(axis=1) | (high < 0).any(axis=1)
    low[outside], high[outside] = np.inf, -np.inf
    return low, high


def _covers(outline: np.ndarray, following: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """Whether a point lies inside each outline, (m,): a ray from it crosses the outline an odd number of times."""
    x, y = point
    start, end = outline[..., 1] > y, following[..., 1] > y
    rise = following[..., 1] - outline[..., 1]
    at = outline[..., 0] + (y - outline[..., 1]) / np.where(rise == 0, 1, rise) * (following - outline)[..., 0]
    return ((start != end) & (x < at)).sum(axis=1) % 2 == 1
