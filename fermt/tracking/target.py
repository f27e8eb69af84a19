"""One target on its way through frames: where it was last, whether it is lost, where it is looked for next."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..boxes import Box, check_box, clip_to_image
from ..data import Crop, crop_target, meeting_square
from .images import check_image, to_rgb
from .network import Network

MARGIN = 10.0  # pixels of a box that stay in the image, and its least side

# Of each option: its type, its least and its largest value, and how to say so.
_FORMS: dict[str, tuple[Any, float, float, str]] = {
    "bgr": (bool, False, True, "True or False"),
    "lost_below": (Real, 0.0, 1.0, "a number from 0 to 1"),
    "patience": (Integral, 1, math.inf, "a whole number of frames, at least 1"),
    "growth": (Real, 1.0, sys.float_info.max, "a finite number, at least 1"),
    "largest_growth": (Real, 1.0, 4.0, "a number from 1 to 4"),
    "refresh_every": (Integral, 0, math.inf, "a whole number of frames, at least 0"),
    "refresh_above": (Real, 0.0, 1.0, "a number from 0 to 1"),
}


class Track(NamedTuple):
    """One frame's result."""

    box: Box  # xywh in pixels of the image, floats
    score: float  # the head's confidence in (0, 1), before the window; not calibrated
    lost: bool  # the score has been below `lost_below` for `patience` frames


@dataclasses.dataclass(frozen=True)
class Options:
    """How a target is followed. The defaults are the protocol of the paper's benchmarks: nothing is ever lost.

    Args:
        bgr: whether images of three or four channels are BGR, as OpenCV reads them, rather than RGB.
        lost_below: the score under which a frame is a bad one; 0: none is. Scores are not calibrated: choose it on your
            own footage.
        patience: bad frames in a row after which the target is lost. Up to then its box moves as in any other frame.
            Lost, it stays where it was in the last good frame, until a frame is good again.
        growth: what the side of the search region is multiplied by for each frame that the target is lost, after the
            first; 1 leaves it as it is. The target is then smaller in the search region than it was in training.
        largest_growth: where that ends.
        refresh_every: frames after which a second template is cut at the target's box, in place of the one before; 0:
            never. It doubles the template's tokens, runs the model itself rather than the packed frame, and is neither
            the paper's nor trained for.
        refresh_above: the score that a frame must have for that, and not be a bad one; a frame later one may.

    Raises:
        TypeError, ValueError: an option is of another type, or out of range; the message carries the value.
    """

    bgr: bool = False
    lost_below: float = 0.0
    patience: int = 1
    growth: float = 1.0
    largest_growth: float = 2.0
    refresh_every: int = 0
    refresh_above: float = 0.5

    def __post_init__(self) -> None:
        for name, (kind, least, largest, expected) in _FORMS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be {expected}, got {value!r}")
            if not least <= value <= largest:
                raise ValueError(f"{name} must be {expected}, got {value!r}")


def finite(found: Tensor) -> list[list[float]]:
    """What a network located, (B, 5), as numbers; RuntimeError if one of them is not finite."""
    rows: list[list[float]] = found.tolist()
    for row in rows:
        if not all(map(math.isfinite, row)):
            raise RuntimeError(f"the network's box and score must be finite, got {tuple(row)}: look at its weights")
    return rows


def advance(network: Network, targets: Sequence[Target], images: Sequence[np.ndarray], least: int = 0) -> list[Track]:
    """Takes each target into its next image, all of them in one call of `network`.

    Args:
        targets, images: one of each for the other; images as `check_image` takes them.
        least: targets that the network is given at least; the first is repeated up to that, and its results left out.
            A GPU's kernels are chosen by their number, so with a constant one the last bits do not depend on it.

    Raises:
        RuntimeError: what was found is not finite for one of them; all stay as they were.
        TypeError, ValueError: an image is not of that form; all stay as they were.
    """
    crops = [target.crop(image) for target, image in zip(targets, images, strict=True)]
    templates, searches = [target.templates for target in targets], [crop.image for crop in crops]
    more = max(least - len(targets), 0)
    found = finite(network.locate(templates + templates[:1] * more, np.stack(searches + searches[:1] * more)))
    rows = found[: len(targets)]
    return [target.take(*taken) for target, taken in zip(targets, zip(images, crops, rows, strict=True), strict=True)]


class Target:
    """What a tracker remembers of one target. `templates` are encoded: the first frame's, and perhaps a later one's."""

    def __init__(self, network: Network, options: Options, image: np.ndarray, box: Sequence[float]) -> None:
        self._network, self._options = network, options
        self._since_refresh = 0
        self.move(image, box)
        self.templates: list[Tensor] = [self._encode(image)]

    def move(self, image: np.ndarray, box: Sequence[float]) -> None:
        """Puts it elsewhere, as found again; its templates stay."""
        size = check_image(image)
        checked = check_box(box, *size)
        for factor in (self._network.template_factor, self._network.search_factor):
            meeting_square(checked, factor, *size)
        self._image_size, self._box = size, checked
        self._good_box = clip_to_image(checked, *size, MARGIN)
        self._bad_frames, self._growth = 0, 1.0

    def crop(self, image: np.ndarray) -> Crop:
        """Where it is looked for in the next image, which may be of another size; RGB."""
        size = check_image(image)
        if size != self._image_size:
            self._image_size = size
            self._box, self._good_box = (clip_to_image(box, *size, MARGIN) for box in (self._box, self._good_box))
        crop = crop_target(image, self._box, self._network.search_factor * self._growth, self._network.search_size)
        return crop._replace(image=to_rgb(crop.image, self._options.bgr))

    def take(self, image: np.ndarray, crop: Crop, found: Sequence[float]) -> Track:
        """A frame's result from what the network found in the crop: cx, cy, w, h in [0, 1] of it, and the score."""
        options = self._options
        *values, score = found
        side = self._network.search_size / crop.resize_factor
        cx, cy, w, h = (value * side for value in values)
        x, y, old_w, old_h = self._box
        left = x + 0.5 * old_w - 0.5 * side + cx - 0.5 * w
        top = y + 0.5 * old_h - 0.5 * side + cy - 0.5 * h
        good, lost_before = score >= options.lost_below, self._bad_frames >= options.patience
        self._bad_frames = 0 if good else self._bad_frames + 1
        self._since_refresh += 1
        lost = self._bad_frames >= options.patience
        self._growth = min(self._growth * options.growth, options.largest_growth) if lost and lost_before else 1.0
        if lost:
            self._box = self._good_box
        else:
            self._box = clip_to_image((left, top, w, h), *self._image_size, MARGIN)
        if good:
            self._good_box = self._box
            self._refresh(image, score)
        return Track(self._box, score, lost)

    def _encode(self, image: np.ndarray) -> Tensor:
        crop = crop_target(image, self._box, self._network.template_factor, self._network.template_size)
        return self._network.encode(to_rgb(crop.image, self._options.bgr))

    def _refresh(self, image: np.ndarray, score: float) -> None:
        if 0 < self._options.refresh_every <= self._since_refresh and score >= self._options.refresh_above:
            self.templates[1:] = [self._encode(image)]
            self._since_refresh = 0
