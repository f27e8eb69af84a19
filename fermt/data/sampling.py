"""Sampling of training pairs: a data set by its weight, a sequence of it, a template and a later search frame."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..config import ModelConfig
from ..images import ImageError
from .augment import Augmentation, View, make_pair
from .pairs import generator_for
from .sequences import Annotation, SequenceSet
from .tally import Tally

MAX_GAP = 200  # frames between template and search region
PAIRS = 60_000  # per epoch, as in the paper
MIN_BOX_SIDE = 2.0  # pixels a side of a usable box
MAX_SEQUENCES = 100  # tried for a pair
MAX_CROPS = 5  # tried in a sequence
MAX_UNREADABLE = 10  # consecutive unreadable images after which sampling stops
logger = logging.getLogger(__name__)


class Draw(NamedTuple):
    """The origin of a pair: indices of the set, of the sequence in it, and of the two frames."""

    set: int
    sequence: int
    template: int
    search: int


class PairSampler:
    """A `PairSource` over data sets.

    A draw that cannot be used is replaced by another from the same set, so that the weights hold, and counted
    (`totals`): an image that is missing or damaged, which is also logged once; a sequence without two usable frames; a
    crop that shows too little of the target, which is cut again a few times before the sequence is given up.

    Args:
        sets: the data sets.
        weights: relative frequencies of the data sets; equal if None.
        config: configuration of the model, for the crops' sizes.
        seed: random seed.
        pairs: pairs per epoch.
        augmentation: random changes of the crops.
        max_gap: most frames between template and search region.

    Raises:
        ValueError: no sets, an empty one, weights that do not fit, or a number out of range.
    """

    def __init__(
        self,
        sets: Sequence[SequenceSet],
        weights: Sequence[float] | None = None,
        config: ModelConfig | None = None,
        seed: int = 0,
        pairs: int = PAIRS,
        *,
        augmentation: Augmentation | None = None,
        max_gap: int = MAX_GAP,
    ) -> None:
        self.sets, self.config, self.seed = tuple(sets), config or ModelConfig(), seed
        self.augmentation, self.max_gap, self._pairs = augmentation or Augmentation(), max_gap, pairs
        if not self.sets or not all(len(one) for one in self.sets):
            raise ValueError(f"there must be data sets, none of them empty; got {[one.name for one in self.sets]}")
        shares = np.ones(len(self.sets)) if weights is None else np.array(weights, np.float64)
        if shares.shape != (len(self.sets),) or not (np.isfinite(shares) & (shares > 0)).all():
            raise ValueError(f"there must be a positive weight for each of {len(self.sets)} sets; got {weights}")
        for what, value, least in (("seed", seed, 0), ("pairs", pairs, 1), ("max_gap", max_gap, 1)):
            if value < least:
                raise ValueError(f"{what} must be at least {least}; got {value}")
        self._bounds = np.cumsum(shares / shares.sum())
        self._tally = Tally(("unreadable images", "sequences without a pair", "crops cut anew", "crops given up"))

    def __len__(self) -> int:
        return self._pairs

    def totals(self) -> dict[str, int]:
        """Counts of replaced draws so far, in this process and its loaders' workers."""
        return self._tally.totals()

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Makes a pair, as defined by `PairSource`; RuntimeError if many tries in a data set give none."""
        return self.pair_and_draw(epoch, index)[0]

    def pair_and_draw(self, epoch: int, index: int) -> tuple[dict[str, Tensor], Draw]:
        """Makes a pair and returns its origin, too."""
        generator = generator_for(self.seed, epoch, index)
        place = min(int(np.searchsorted(self._bounds, generator.random(), side="right")), len(self.sets) - 1)
        unreadable = 0
        for _ in range(MAX_SEQUENCES):
            draw = self._draw(place, generator)
            if draw is None:
                self._tally.add("sequences without a pair")
                continue
            try:
                template, search = self.views(draw)
            except ImageError as error:
                unreadable += 1
                self._report(error)
                if unreadable == MAX_UNREADABLE:
                    raise RuntimeError(
                        f"{unreadable} images of {self.sets[place].name} in a row cannot be read; the last: {error}. "
                        "Is the data set still where it was?"
                    ) from error
                continue
            unreadable = 0
            pair = self._cut(template, search, generator)
            if pair is not None:
                return pair, draw
            self._tally.add("crops given up")
        raise RuntimeError(
            f"{self.sets[place].name}: no pair in {MAX_SEQUENCES} sequences drawn; replaced so far: {self.totals()}"
        )

    def views(self, draw: Draw) -> tuple[View, View]:
        """Reads the two frames of a draw and their boxes; ImageError if one is missing or damaged."""
        sequences = self.sets[draw.set]
        boxes = sequences.annotation(draw.sequence).boxes
        template = View(sequences.image(draw.sequence, draw.template), tuple(boxes[draw.template].tolist()))
        if draw.search == draw.template:
            return template, template
        return template, View(sequences.image(draw.sequence, draw.search), tuple(boxes[draw.search].tolist()))

    def _draw(self, place: int, generator: np.random.Generator) -> Draw | None:
        sequences = self.sets[place]
        i = int(generator.integers(len(sequences)))
        usable = _usable(sequences.annotation(i))
        frames = (draw_frames if sequences.is_video else draw_still)(usable, self.max_gap, generator)
        return None if frames is None else Draw(place, i, *frames)

    def _cut(self, template: View, search: View, generator: np.random.Generator) -> dict[str, Tensor] | None:
        for _ in range(MAX_CROPS):
            pair = make_pair(template, search, self.config, self.augmentation, generator)
            if pair is not None:
                return pair
            self._tally.add("crops cut anew")
        return None

    def _report(self, error: ImageError) -> None:
        self._tally.add("unreadable images")
        if self._tally.is_new(error.path):
            logger.warning("%s; another pair takes its place", error)


def draw_frames(usable: np.ndarray, max_gap: int, generator: np.random.Generator) -> tuple[int, int] | None:
    """Draws usable template and search frames, the latter at most `max_gap` later; None if there are no two.

    The template is drawn uniformly among the usable frames that have a partner, then the partner among theirs.
    """
    frames = np.flatnonzero(usable)
    ends = np.searchsorted(frames, frames + max_gap, side="right")  # end of each frame's range of partners
    paired = np.flatnonzero(ends > np.arange(1, len(frames) + 1))
    if not len(paired):
        return None
    first = int(paired[generator.integers(len(paired))])
    second = int(generator.integers(first + 1, ends[first]))
    return int(frames[first]), int(frames[second])


def draw_still(usable: np.ndarray, max_gap: int, generator: np.random.Generator) -> tuple[int, int] | None:
    """Draws a usable frame and returns it twice; None if there is none."""
    frames = np.flatnonzero(usable)
    if not len(frames):
        return None
    frame = int(frames[generator.integers(len(frames))])
    return frame, frame


def _usable(annotation: Annotation) -> np.ndarray:
    boxes, valid = annotation
    with np.errstate(invalid="ignore"):
        return valid & (boxes[:, 2:] >= MIN_BOX_SIDE).all(axis=1)
