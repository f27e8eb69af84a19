"""Layers of color and alpha, and compositing."""

from __future__ import annotations

import cv2
import numpy as np

_OPAQUE = 255


def premultiplied(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Multiplies colors by alpha: (H, W, 3) RGB and (H, W) alpha, uint8 -> (H, W, 4) uint8."""
    three = cv2.merge((alpha, alpha, alpha))
    return cv2.merge((*cv2.split(cv2.multiply(colors, three, scale=1 / _OPAQUE)), alpha))


def lay_over(image: np.ndarray, layer: np.ndarray, left: int, top: int) -> None:
    """Composites a premultiplied layer, (h, w, 4), over an image, (H, W, 3), inside which it lies; in place."""
    h, w = layer.shape[:2]
    part = image[top : top + h, left : left + w]
    red, green, blue, alpha = cv2.split(layer)
    clear = cv2.bitwise_not(alpha)
    part[:] = cv2.add(
        cv2.multiply(part, cv2.merge((clear, clear, clear)), scale=1 / _OPAQUE), cv2.merge((red, green, blue))
    )
