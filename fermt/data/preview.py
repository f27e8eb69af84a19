"""Pictures of training pairs, as the network will see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
from torch import Tensor

from ..config import ModelConfig
from .augment import NONE, Augmentation, View, make_pair
from .pairs import pair_generator
from .sampling import Draw, PairSampler

GREEN = (0, 220, 0)  # of the box
LINE = 16  # pixels from one line of text to the next
AFTER = 3  # examples of each augmentation
TRIES = 20
_PAPER = Augmentation()

# One at a time, and those of chance at a probability of 1.
AUGMENTATIONS = {
    "centre jitter": dataclasses.replace(NONE, search_center=_PAPER.search_center),
    "scale jitter": dataclasses.replace(NONE, search_scale=_PAPER.search_scale),
    "flip": dataclasses.replace(NONE, flip=1.0),
    "grey": dataclasses.replace(NONE, grey=1.0),
    "brightness": dataclasses.replace(NONE, brightness=_PAPER.brightness),
    "all": _PAPER,
}


def pair_pictures(sampler: PairSampler, epoch: int, count: int) -> Iterator[np.ndarray]:
    """The first `count` pairs of an epoch: template, what it is of, and search crop with the box, (H, W, 3) RGB."""
    for index in range(count):
        pair, draw = sampler.explained(epoch, index)
        yield _picture(pair, _words(sampler, draw))


def augmentation_pictures(sampler: PairSampler, epoch: int) -> Iterator[np.ndarray]:
    """One pair before each augmentation and, `AFTER` times, after it: a row of 1 + AFTER pictures for each."""
    _, draw = sampler.explained(epoch, 0)
    template, search = sampler.views(draw)
    generator = pair_generator(sampler.seed, epoch, 0)
    before = _varied(template, search, sampler.config, NONE, generator)
    for name, augmentation in AUGMENTATIONS.items():
        yield _picture(before, (name, "before", *_words(sampler, draw)))
        for _ in range(AFTER):
            yield _picture(_varied(template, search, sampler.config, augmentation, generator), (name, "after"))


def _varied(
    template: View, search: View, config: ModelConfig, augmentation: Augmentation, generator: np.random.Generator
) -> dict[str, Tensor]:
    for _ in range(TRIES):
        pair = make_pair(template, search, config, augmentation, generator)
        if pair is not None:
            return pair
    raise ValueError(f"this pair's target, {search.box} (x, y, w, h), is out of sight in most crops; take another seed")


def _words(sampler: PairSampler, draw: Draw) -> tuple[str, ...]:
    frames = f"{draw.template} -> {draw.search}" if draw.search != draw.template else f"{draw.template}"
    return sampler.sets[draw.set].name, f"sequence {draw.sequence}", f"frame {frames}"


def _picture(pair: dict[str, Tensor], words: tuple[str, ...]) -> np.ndarray:
    template, search = pair["template"].numpy(), pair["search"].numpy().copy()
    size, column = search.shape[0], template.shape[1]
    left, top, width, height = (pair["box"].numpy() * size).tolist()
    cv2.rectangle(search, (round(left), round(top)), (round(left + width), round(top + height)), GREEN, 1)
    picture = np.full((max(size, template.shape[0] + LINE * (len(words) + 1)), column + size, 3), 255, np.uint8)
    picture[: template.shape[0], :column] = template
    picture[:size, column:] = search
    for i, line in enumerate(words, 1):
        cv2.putText(
            picture, line, (4, template.shape[0] + LINE * i), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
        )
    return picture
