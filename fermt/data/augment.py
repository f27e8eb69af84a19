"""Training pairs: crops cut from two frames around the target, with random augmentation."""

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
from . import appearance
from .crops import Square, crop_target, target_square

PROBABILITIES = ("flip", "gray", "blur", "hidden")
SMALLEST_PART = 4.0  # pixels of a crop: smallest visible width and height of the target


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Strengths of random augmentation; the defaults are the paper's recipe.

    A crop is cut around a jittered box: its sides are multiplied by exp(scale * normal), its center is moved by up to
    center / 2 times the square root of the jittered area. `flip` and `gray` are probabilities of changes to both crops;
    `brightness` is the largest change of a factor drawn for each crop.

    The other augmentations, which are not in the paper's recipe, are off by default and drawn for each crop: the
    standard deviations of `rotation` (radians) and of the logarithm of `stretch` (width over height), the largest
    changes of `contrast` and of each `color` channel's gain, the probability of `blur`, the largest standard deviation
    of `noise` (gray levels), and the probability that a part of the target is `hidden` in the search region.
    """

    template_center: float = 0.0
    template_scale: float = 0.0
    search_center: float = 3.0
    search_scale: float = 0.25
    flip: float = 0.5
    gray: float = 0.05
    brightness: float = 0.2
    rotation: float = 0.0
    stretch: float = 0.0
    contrast: float = 0.0
    color: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    hidden: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, most = getattr(self, field.name), 1.0 if field.name in PROBABILITIES else math.inf
            if not 0 <= value <= most or math.isinf(value):
                raise ValueError(f"{field.name} must be finite and lie in [0, {most:g}]; got {value}")


NO_AUGMENTATION = Augmentation(search_center=0.0, search_scale=0.0, flip=0.0, gray=0.0, brightness=0.0)


class View(NamedTuple):
    """A frame, (H, W, 3) uint8 RGB, and the target's box, xywh in pixels."""

    image: np.ndarray
    box: Box


def make_pair(
    template: View, search: View, config: ModelConfig, augmentation: Augmentation, generator: np.random.Generator
) -> dict[str, Tensor] | None:
    """Cuts a template and a search region, and computes the target's box in the latter.

    Returns:
        `template` (St, St, 3) uint8 RGB, `search` (Ss, Ss, 3) uint8 RGB, and `box` (4,) float32, xywh as fractions of
        the search region's side; it reaches outside the region if the target does. None if less than 4 pixels of the
        target's width or height are visible in one of the crops.
    """
    a = augmentation
    jitters = (
        _Jitter(a.template_center, a.template_scale, config.template_factor, config.template_size),
        _Jitter(a.search_center, a.search_scale, config.search_factor, config.search_size),
    )
    cut = _cut_rotated if augmentation.rotation or augmentation.stretch else _cut
    template_cut, search_cut = (
        cut(view, jitter, augmentation, generator) for view, jitter in zip((template, search), jitters, strict=True)
    )
    if template_cut is None or search_cut is None:
        return None
    return finished_pair([template_cut[0], search_cut[0]], search_cut[1], augmentation, generator)


def finished_pair(
    crops: list[np.ndarray], box: Box, augmentation: Augmentation, generator: np.random.Generator
) -> dict[str, Tensor]:
    """Changes the crops of a template and a search region, cut already, at random; returns what `make_pair` does."""
    flip, gray = (generator.random(2) < (augmentation.flip, augmentation.gray)).tolist()
    if flip:
        crops, box = [cv2.flip(crop, 1) for crop in crops], flipped(box)
    if gray:
        crops = [cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for crop in crops]
    low, high = max(0.0, 1 - augmentation.brightness), 1 + augmentation.brightness
    crops = [cv2.convertScaleAbs(crop, alpha=generator.uniform(low, high)) for crop in crops]
    if generator.random() < augmentation.hidden:
        crops[1] = appearance.hidden(crops[1], box, generator)
    crops = [_changed(crop, augmentation, generator) for crop in crops]
    pixels = {name: torch.from_numpy(crop) for name, crop in zip(("template", "search"), crops, strict=True)}
    return pixels | {"box": torch.tensor(box, dtype=torch.float32, device="cpu")}


def jittered(box: Box, center: float, scale: float, generator: np.random.Generator) -> Box:
    """Changes the sides and the center of an xywh box at random, as defined by `Augmentation`."""
    x, y, w, h = box
    new_w, new_h = np.array((w, h)) * np.exp(generator.standard_normal(2) * scale)
    offset = math.sqrt(new_w * new_h) * center * (generator.random(2) - 0.5)
    return (
        float(x + w / 2 + offset[0] - new_w / 2), float(y + h / 2 + offset[1] - new_h / 2), float(new_w), float(new_h)
    )  # fmt: skip


def box_in_crop(box: Box, around: Box, resize_factor: float, size: int) -> Box:
    """Maps an xywh box from pixels of the image to fractions of the side of the crop that was cut around `around`.

    Coordinates are continuous: pixel k covers [k, k + 1]. The middle of `around` is at 0.5, as in the tracker, which
    maps boxes back. (In the authors' training labels it is half a crop pixel further left and up.)
    """
    w, h = box[2] * resize_factor, box[3] * resize_factor
    x, y = (
        size / 2 + (box[i] + box[i + 2] / 2 - around[i] - around[i + 2] / 2) * resize_factor for i in (0, 1)
    )  # of its center
    return (x - w / 2) / size, (y - h / 2) / size, w / size, h / size


def flipped(box: Box) -> Box:
    """Mirrors a box, xywh in [0, 1] of a crop, with its crop."""
    return 1 - box[0] - box[2], box[1], box[2], box[3]


def _changed(crop: np.ndarray, augmentation: Augmentation, generator: np.random.Generator) -> np.ndarray:
    """Applies the augmentations that are not in the paper's recipe."""
    if augmentation.contrast or augmentation.color:
        crop = appearance.recolored(crop, augmentation.contrast, augmentation.color, generator)
    if augmentation.blur and generator.random() < augmentation.blur:
        crop = appearance.blurred(crop, generator)
    if augmentation.noise:
        crop = appearance.noisy(crop, augmentation.noise, generator)
    return crop


Cut = tuple[np.ndarray, Box]  # a crop and the target's box in it


class _Jitter(NamedTuple):
    """How a crop is placed around the target, and its side in pixels."""

    center: float
    scale: float
    factor: float
    size: int


def _cut(view: View, jitter: _Jitter, augmentation: Augmentation, generator: np.random.Generator) -> Cut | None:
    """Cuts a crop around the jittered target; None if too little of the target is visible in it."""
    center, scale, factor, size = jitter
    around = jittered(view.box, center, scale, generator)
    square = target_square(around, factor)
    height, width = view.image.shape[:2]
    if min(_visible(view.box, square, height, width)) * size / square.side < SMALLEST_PART:
        return None
    crop = crop_target(view.image, around, factor, size)
    return crop.image, box_in_crop(view.box, around, crop.resize_factor, size)


def _cut_rotated(view: View, jitter: _Jitter, augmentation: Augmentation, generator: np.random.Generator) -> Cut | None:
    """Cuts a crop as `_cut`, rotated and stretched around the jittered box.

    The box returned is that of the ellipse inscribed in the given box, which fits a rotated object better than the box
    around all four corners.
    """
    center, scale, factor, size = jitter
    around = jittered(view.box, center, scale, generator)
    angle, stretch = generator.standard_normal(2) * (augmentation.rotation, augmentation.stretch)
    x, y, w, h = view.box
    side = math.sqrt(around[2] * around[3]) * factor
    image, shrunk = _shrink(view.image, size / side)
    rotation = np.array(((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))
    matrix = (rotation * np.exp((0.5 * stretch, -0.5 * stretch))[:, None]) * (size / side)  # image -> crop
    middle = np.array((around[0] + around[2] / 2, around[1] + around[3] / 2))
    half = 0.5 * np.hypot(matrix[:, 0] * w, matrix[:, 1] * h)
    target = matrix @ (np.array((x + w / 2, y + h / 2)) - middle) + 0.5 * size
    seen = np.minimum(target + half, size) - np.maximum(target - half, 0)
    if seen.min() < SMALLEST_PART:
        return None
    scaled = matrix / shrunk
    offset = matrix @ (0.5 / shrunk - middle) + 0.5 * size - 0.5  # from continuous coordinates to pixel indices
    crop = cv2.warpAffine(image, np.column_stack((scaled, offset)), (size, size), flags=cv2.INTER_LINEAR)
    left, top = (target - half) / size
    return crop, (float(left), float(top), float(2 * half[0] / size), float(2 * half[1] / size))


def _shrink(image: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Shrinks an image that will be drawn at less than half its size; returns it and the scale, else 1."""
    if scale > 0.5:
        return image, 1.0
    height, width = image.shape[:2]
    small = cv2.resize(image, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_AREA)
    return small, 0.5 * (small.shape[1] / width + small.shape[0] / height)


def _visible(box: Box, square: Square, height: int, width: int) -> tuple[float, float]:
    """Width and height in pixels of the part of `box` inside `square` and the image; not positive if there is none.

    The image's last row and column are not counted, because they are black in crops.
    """
    x, y, w, h = box
    across = min(x + w, square.left + square.side, width - 1) - max(x, square.left, 0)
    down = min(y + h, square.top + square.side, height - 1) - max(y, square.top, 0)
    return across, down
