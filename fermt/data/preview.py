"""Pictures of training pairs for inspection."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
from torch import Tensor

from ..config import ModelConfig
from .augment import NO_AUGMENTATION, Augmentation, View, make_pair
from .pairs import generator_for
from .sampling import Draw, PairSampler

BOX_COLOR = (0, 220, 0)  # color of the box
LINE_HEIGHT = 16  # height of a line of text in pixels
EXAMPLES = 3  # of each augmentation
MAX_TRIES = 20
_PAPER = Augmentation()

# Each augmentation alone; random ones with probability 1.
AUGMENTATIONS = {
    "center jitter": dataclasses.replace(NO_AUGMENTATION, search_center=_PAPER.search_center),
    "scale jitter": dataclasses.replace(NO_AUGMENTATION, search_scale=_PAPER.search_scale),
    "flip": dataclasses.replace(NO_AUGMENTATION, flip=1.0),
    "gray": dataclasses.replace(NO_AUGMENTATION, gray=1.0),
    "brightness": dataclasses.replace(NO_AUGMENTATION, brightness=_PAPER.brightness),
    "all": _PAPER,
}


def pair_pictures(sampler: PairSampler, epoch: int, count: int) -> Iterator[np.ndarray]:
    """Yields pictures, (H, W, 3) RGB, of the first `count` pairs of an epoch, with their origins and boxes."""
    for index in range(count):
        pair, draw = sampler.pair_and_draw(epoch, index)
        yield _picture(pair, _caption(sampler, draw))


def augmentation_pictures(sampler: PairSampler, epoch: int) -> Iterator[np.ndarray]:
    """Yields pictures of one pair before and, `EXAMPLES` times, after each augmentation."""
    _, draw = sampler.pair_and_draw(epoch, 0)
    template, search = sampler.views(draw)
    generator = generator_for(sampler.seed, epoch, 0)
    before = _augment(template, search, sampler.config, NO_AUGMENTATION, generator)
    for name, augmentation in AUGMENTATIONS.items():
        yield _picture(before, (name, "before", *_caption(sampler, draw)))
        for _ in range(EXAMPLES):
            yield _picture(_augment(template, search, sampler.config, augmentation, generator), (name, "after"))


def _augment(
    template: View, search: View, config: ModelConfig, augmentation: Augmentation, generator: np.random.Generator
) -> dict[str, Tensor]:
    for _ in range(MAX_TRIES):
        pair = make_pair(template, search, config, augmentation, generator)
        if pair is not None:
            return pair
    raise ValueError(f"the target {search.box} (x, y, w, h) is not visible in most crops of a pair; use another seed")


def _caption(sampler: PairSampler, draw: Draw) -> tuple[str, ...]:
    frames = f"{draw.template} -> {draw.search}" if draw.search != draw.template else f"{draw.template}"
    return sampler.sets[draw.set].name, f"sequence {draw.sequence}", f"frame {frames}"


def _picture(pair: dict[str, Tensor], lines: tuple[str, ...]) -> np.ndarray:
    template, search = pair["template"].numpy(), pair["search"].numpy().copy()
    size, column = search.shape[0], template.shape[1]
    left, top, width, height = (pair["box"].numpy() * size).tolist()
    cv2.rectangle(search, (round(left), round(top)), (round(left + width), round(top + height)), BOX_COLOR, 1)
    picture = np.full((max(size, template.shape[0] + LINE_HEIGHT * (len(lines) + 1)), column + size, 3), 255, np.uint8)
    picture[: template.shape[0], :column] = template
    picture[:size, column:] = search
    for i, line in enumerate(lines, 1):
        place = (4, template.shape[0] + LINE_HEIGHT * i)
        cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return picture
