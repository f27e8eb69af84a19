"""From two frames and the target's boxes in them to a training pair, varied at random as the paper's recipe does."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..boxes import Box
from ..config import ModelConfig
from .crops import Square, crop_target, target_square

SMALLEST_PART = 4.0  # pixels a side of a crop: of the target, at least so much is to be seen


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How much is left to chance; the defaults are the paper's recipe.

    A crop is cut around a jittered box: sides times exp(scale * normal), centre off by up to half of centre times the
    square root of the jittered area. Flip and grey are probabilities, and do the same to both crops; brightness is the
    largest change of a factor that each crop has of its own.
    """

    template_center: float = 0.0
    template_scale: float = 0.0
    search_center: float = 3.0
    search_scale: float = 0.25
    flip: float = 0.5
    grey: float = 0.05
    brightness: float = 0.2

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, most = getattr(self, field.name), 1.0 if field.name in ("flip", "grey") else math.inf
            if not 0 <= value <= most or math.isinf(value):
                raise ValueError(f"{field.name} must be finite and lie in [0, {most:g}]; got {value}")


NONE = Augmentation(search_center=0.0, search_scale=0.0, flip=0.0, grey=0.0, brightness=0.0)


class View(NamedTuple):
    """A frame, (H, W, 3) uint8 RGB, and the target's box in it, xywh in pixels."""

    image: np.ndarray
    box: Box


def make_pair(
    template: View, search: View, config: ModelConfig, augmentation: Augmentation, generator: np.random.Generator
) -> dict[str, Tensor] | None:
    """Two crops and the target's place in the second.

    Returns:
        `template` (St, St, 3) uint8 RGB, `search` (Ss, Ss, 3) uint8 RGB, and `box` (4,) float32, xywh as fractions of
        the search crop's side; a target that reaches outside the crop has a box that does, too. None if less than 4
        pixels of the target, in width or height, are in one of the crops.
    """
    template_cut = _cut(
        template,
        augmentation.template_center,
        augmentation.template_scale,
        config.template_factor,
        config.template_size,
        generator,
    )
    search_cut = _cut(
        search,
        augmentation.search_center,
        augmentation.search_scale,
        config.search_factor,
        config.search_size,
        generator,
    )
    if template_cut is None or search_cut is None:
        return None
    crops, box = [template_cut[0], search_cut[0]], search_cut[1]
    flip, grey = (generator.random(2) < (augmentation.flip, augmentation.grey)).tolist()
    if flip:
        crops, box = [cv2.flip(crop, 1) for crop in crops], flipped(box, config.search_size)
    if grey:
        crops = [cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for crop in crops]
    low, high = max(0.0, 1 - augmentation.brightness), 1 + augmentation.brightness
    crops = [cv2.convertScaleAbs(crop, alpha=generator.uniform(low, high)) for crop in crops]
    pixels = {name: torch.from_numpy(crop) for name, crop in zip(("template", "search"), crops, strict=True)}
    return pixels | {"box": torch.tensor(box, dtype=torch.float32)}


def jittered(box: Box, center: float, scale: float, generator: np.random.Generator) -> Box:
    """The xywh `box`, its sides and its centre changed at random; `Augmentation` says how."""
    x, y, w, h = box
    new_w, new_h = np.array((w, h)) * np.exp(generator.standard_normal(2) * scale)
    offset = math.sqrt(new_w * new_h) * center * (generator.random(2) - 0.5)
    return (
        float(x + w / 2 + offset[0] - new_w / 2), float(y + h / 2 + offset[1] - new_h / 2), float(new_w), float(new_h)
    )  # fmt: skip


def place_in_crop(box: Box, around: Box, resize_factor: float, size: int) -> Box:
    """The xywh `box`, in pixels of the image, as fractions of the side of the crop that was cut around `around`.

    As in the authors' code: the middle of `around` is at pixel (size - 1) / 2.
    """
    w, h = box[2] * resize_factor, box[3] * resize_factor
    x, y = (
        (size - 1) / 2 + (box[i] + box[i + 2] / 2 - around[i] - around[i + 2] / 2) * resize_factor for i in (0, 1)
    )  # of its centre
    return (x - w / 2) / size, (y - h / 2) / size, w / size, h / size


def flipped(box: Box, size: int) -> Box:
    """The place of a box in a crop of that size once left and right are exchanged: pixel p becomes size - 1 - p."""
    return (size - 1) / size - box[0] - box[2], box[1], box[2], box[3]


def _cut(
    view: View, center: float, scale: float, factor: float, size: int, generator: np.random.Generator
) -> tuple[np.ndarray, Box] | None:
    """A crop around the jittered target, and the target's place in it; None if too little of it is to be seen there."""
    around = jittered(view.box, center, scale, generator)
    square = target_square(around, factor)
    height, width = view.image.shape[:2]
    if min(_seen(view.box, square, height, width)) * size / square.side < SMALLEST_PART:
        return None
    crop = crop_target(view.image, around, factor, size)
    return crop.image, place_in_crop(view.box, around, crop.resize_factor, size)


def _seen(box: Box, square: Square, height: int, width: int) -> tuple[float, float]:
    """Width and height, in pixels of the image, of what `box`, `square` and the image share; not positive if nothing.

    The image's last row and column are not counted, for crops have them black.
    """
    x, y, w, h = box
    across = min(x + w, square.left + square.side, width - 1) - max(x, square.left, 0)
    down = min(y + h, square.top + square.side, height - 1) - max(y, square.top, 0)
    return across, down
