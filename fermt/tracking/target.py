"""The state of one tracked target: its last box, whether it is lost, and its next search region."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from torch import Tensor

from ..boxes import Box, check_box, clip_to_image
from ..data import meeting_square
from .brightness import brighten
from .images import Image, check_image
from .network import Network
from .views import View, locate

MARGIN = 10.0  # pixels of a box that stay in the image, and its smallest side

# For each option: type, smallest and largest value, and the expected form in words.
_FORMS: dict[str, tuple[Any, float, float, str]] = {
    "bgr": (bool, False, True, "True or False"),
    "brighten": (bool, False, True, "True or False"),
    "lost_below": (Real, 0.0, 1.0, "a number from 0 to 1"),
    "patience": (Integral, 1, math.inf, "a whole number of frames, at least 1"),
    "growth": (Real, 1.0, sys.float_info.max, "a finite number, at least 1"),
    "largest_growth": (Real, 1.0, 4.0, "a number from 1 to 4"),
    "refresh_every": (Integral, 0, math.inf, "a whole number of frames, at least 0"),
    "refresh_above": (Real, 0.0, 1.0, "a number from 0 to 1"),
}


class Track(NamedTuple):
    """The result for one target in one frame."""

    box: Box  # xywh in pixels of the image, floats
    score: float  # confidence of the head in (0, 1), before the window; not calibrated
    lost: bool  # the score has been below `lost_below` for `patience` frames


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of tracking. With the defaults, but `brighten=False`, it is the protocol of the paper's benchmarks.

    No target is ever lost by the defaults.

    Args:
        bgr: whether images with three or four channels are BGR, as OpenCV reads them, instead of RGB.
        brighten: whether dark images are brightened (`fermt.tracking.brightness`). It is not in the paper.
        lost_below: frames with a lower score are bad; 0: none is. Scores are not calibrated: choose the value on your
            own footage.
        patience: consecutive bad frames after which the target is lost. Before, its box is updated as in good frames;
            after, it stays at that of the last good frame until a frame is good again.
        growth: factor of the side of the search region for each frame that the target is lost, after the first. With
            growth above 1 the target is smaller in the search region than in training.
        largest_growth: largest product of these factors.
        refresh_every: frames after which a second template is cut at the target's box and replaces the previous one;
            0: never. This doubles the template tokens and runs the model itself instead of the packed frame. It is not
            in the paper, and models are not trained for it.
        refresh_above: smallest score of a frame whose box is used for that; if it is lower, the next frame is tried.

    Raises:
        TypeError, ValueError: an option has another type or is out of range; the message has the value.
    """

    bgr: bool = False
    brighten: bool = True
    lost_below: float = 0.0
    patience: int = 1
    growth: float = 1.0
    largest_growth: float = 2.0
    refresh_every: int = 0
    refresh_above: float = 0.5

    def __post_init__(self) -> None:
        for name, (kind, least, largest, expected) in _FORMS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise TypeError(f"{name} must be {expected}, got {value!r}")
            if not least <= value <= largest:
                raise ValueError(f"{name} must be {expected}, got {value!r}")
            plain = {Real: float, Integral: int}.get(kind)  # NumPy scalars would turn results into NumPy scalars
            if plain:
                object.__setattr__(self, name, plain(value))


def check_finite(found: Tensor) -> list[list[float]]:
    """Returns boxes and scores, (B, 5), as lists; RuntimeError if a number is not finite."""
    rows: list[list[float]] = found.tolist()
    for row in rows:
        if not all(map(math.isfinite, row)):
            raise RuntimeError(f"the network's box and score must be finite, got {tuple(row)}: look at its weights")
    return rows


def advance(network: Network, targets: Sequence[Target], images: Sequence[Image], min_batch: int = 0) -> list[Track]:
    """Tracks each target in its next image, all in one call of `network`.

    Args:
        targets: the targets.
        images: an image for each target, as for `check_image`.
        min_batch: smallest batch size, to which the first target is repeated. With a constant batch size the last bits
            of results do not depend on the number of targets, by which a GPU's kernels are chosen.

    Raises:
        RuntimeError: the result for a target is not finite; no target is changed.
        TypeError, ValueError: an image has another form; no target is changed.
    """
    brightened: dict[int, Image] = {}  # by identity: an image of many targets is brightened once
    views = [target.view(image, brightened) for target, image in zip(targets, images, strict=True)]
    found = check_finite(locate(network, [target.templates for target in targets], views, min_batch))
    rows = zip(targets, views, found[: len(targets)], strict=True)
    return [target.update(view, row) for target, view, row in rows]


class Target:
    """The state of one target. `templates` has the encoded template of the first frame and possibly a later one."""

    def __init__(self, network: Network, options: Options, image: Image, box: Sequence[float]) -> None:
        self._network, self._options = network, options
        self._since_refresh = 0
        self.move(image, box)
        self.templates: list[Tensor] = [self._encode(brighten(image) if options.brighten else image)]

    def move(self, image: Image, box: Sequence[float]) -> None:
        """Moves the target to another box; its templates stay."""
        size = check_image(image, self._network.device)
        checked = check_box(box, *size)
        for factor in (self._network.template_factor, self._network.search_factor):
            meeting_square(checked, factor, *size)
        self._image_size, self._box = size, checked
        self._good_box = clip_to_image(checked, *size, MARGIN)
        self._bad_frames, self._growth = 0, 1.0

    def view(self, image: Image, brightened: dict[int, Image]) -> View:
        """The search region in the next image, whose size may differ from the last.

        An image that is brightened is put into `brightened` by its `id`, or taken from there.
        """
        size = check_image(image, self._network.device)
        if size != self._image_size:
            self._image_size = size
            self._box, self._good_box = (clip_to_image(box, *size, MARGIN) for box in (self._box, self._good_box))
        if self._options.brighten:
            if id(image) not in brightened:
                brightened[id(image)] = brighten(image)
            image = brightened[id(image)]
        return self._around_box(image, self._network.search_factor * self._growth)

    def update(self, view: View, found: Sequence[float]) -> Track:
        """Updates the target with the network's result in its view: cx, cy, w, h in [0, 1] of it, and the score."""
        options, size = self._options, self._network.search_size
        *values, score = found
        side = size / (size / view.square.side)  # rounded as by a crop's resize factor
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
            self._refresh(view.image, score)
        return Track(self._box, score, lost)

    def _around_box(self, image: Image, factor: float) -> View:
        return View(image, meeting_square(self._box, factor, *self._image_size), self._options.bgr)

    def _encode(self, image: Image) -> Tensor:
        view = self._around_box(image, self._network.template_factor)
        return self._network.encode(view.crop(self._network.template_size))

    def _refresh(self, image: Image, score: float) -> None:
        if 0 < self._options.refresh_every <= self._since_refresh and score >= self._options.refresh_above:
            self.templates[1:] = [self._encode(image)]
            self._since_refresh = 0
