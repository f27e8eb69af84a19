"""Masks of what is drawn."""

from __future__ import annotations

import cv2
import numpy as np


def edges_of(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool -> left, top, right, bottom of what is true, in pixels."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([x, y, x + w, y + h])
