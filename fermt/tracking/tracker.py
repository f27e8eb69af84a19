"""The tracker: crop, normalise, forward, window, decode, map back, clip (the authors' test-time tracker)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..boxes import Box, check_box, clip_to_image
from ..data import crop_target
from ..model import FERMT
from .network import Packed, network_for

MARGIN = 10.0  # pixels of a box that stay in the image, and its least side


class Track(NamedTuple):
    """One frame's result."""

    box: Box  # xywh in pixels of the image, floats
    score: float  # the head's confidence in (0, 1), before the window; not calibrated
    lost: bool  # score below the tracker's `lost_below`


class Tracker:
    """Follows one target from frame to frame.

        tracker = Tracker(model)
        tracker.init(image_rgb, (x, y, w, h))
        box, score, lost = tracker.update(next_image_rgb)

    The model is packed (`fermt_kernels.frame`), on the CPU and on a GPU: its weights as they are now, so train first.
    Where there is no packed frame (float64, no compiled library or no Triton, another backend asked for), the model
    itself runs.

    Args:
        model: a FERMT, whose dtype and device are those that tracking runs in; or a packed model.
        dtype: of the packed frame's products, torch.float32 or torch.bfloat16, on a GPU also torch.float16; None takes
            the model's own.
        lost_below: the score under which a frame counts as lost. The score is not calibrated, so the default of 0
            never says so; choose a threshold on your own footage. A lost frame moves the box as any other does.

    Raises:
        ValueError: `dtype` is asked for and there is no packed frame for it; the message says why.
    """

    def __init__(self, model: FERMT | Packed, *, dtype: torch.dtype | None = None, lost_below: float = 0.0) -> None:
        self.network = network_for(model, dtype)
        self.lost_below = lost_below
        self._template: Tensor | None = None
        self._box: Box = (0.0, 0.0, 0.0, 0.0)

    @torch.inference_mode()
    def init(self, image: np.ndarray, box: Sequence[float]) -> None:
        """Takes the target in the first frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            box: (x, y, w, h) in pixels: left, top, width, height.

        Raises:
            TypeError, ValueError: the image is not of that form, or the box has no area or lies outside the image.
        """
        height, width = _check_image(image)
        checked = check_box(box, height, width)
        crop = crop_target(image, checked, self.network.template_factor, self.network.template_size)
        self._template = self.network.encode(crop.image)
        self._box = checked

    @torch.inference_mode()
    def update(self, image: np.ndarray) -> Track:
        """The target in the next frame, looked for around the last box.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            RuntimeError: `init` has not been called.
            TypeError, ValueError: the image is not of that form.
        """
        if self._template is None:
            raise RuntimeError("Tracker.update needs a target: call Tracker.init(image, (x, y, w, h)) first")
        height, width = _check_image(image)
        size = self.network.search_size
        crop = crop_target(image, self._box, self.network.search_factor, size)
        *found, score = self.network.locate([self._template], crop.image[None])[0].tolist()
        side = size / crop.resize_factor
        cx, cy, w, h = (value * side for value in found)
        x, y, old_w, old_h = self._box
        half_side = 0.5 * side
        left = x + 0.5 * old_w - half_side + cx - 0.5 * w
        top = y + 0.5 * old_h - half_side + cy - 0.5 * h
        self._box = clip_to_image((left, top, w, h), height, width, MARGIN)
        return Track(self._box, score, score < self.lost_below)


def _check_image(image: np.ndarray) -> tuple[int, int]:
    """Height and width of an RGB image."""
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image must be a uint8 array of shape (H, W, 3), RGB; got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"an image must be uint8, RGB; got dtype {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 2:
        raise ValueError(f"an image must have shape (H, W, 3), RGB, at least 2 x 2 pixels; got {image.shape}")
    return image.shape[0], image.shape[1]
