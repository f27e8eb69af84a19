"""Layers of colour and alpha, and laying one over an image."""

from __future__ import annotations

import cv2
import numpy as np

_WHOLE = 255


def premultiplied(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB and (H, W) alpha, uint8 -> (H, W, 4) uint8, the colours already multiplied by alpha."""
    three = cv2.merge((alpha, alpha, alpha))
    return cv2.merge((*cv2.split(cv2.multiply(colours, three, scale=1 / _WHOLE)), alpha))


def lay_over(image: np.ndarray, layer: np.ndarray, left: int, top: int) -> None:
    """Puts a premultiplied layer (h, w, 4) on a part of `image` (H, W, 3) that it lies in whole; in place."""
    h, w = layer.shape[:2]
    part = image[top : top + h, left : left + w]
    red, green, blue, alpha = cv2.split(layer)
    clear = cv2.bitwise_not(alpha)
    part[:] = cv2.add(
        cv2.multiply(part, cv2.merge((clear, clear, clear)), scale=1 / _WHOLE), cv2.merge((red, green, blue))
    )
