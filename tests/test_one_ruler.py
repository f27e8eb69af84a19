"""Boxes of real and of synthetic training pairs are measured with one ruler: from the edges of the crop's pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from fermt import ModelConfig
from fermt.data.augment import NO_AUGMENTATION, View, make_pair
from fermt.data.pairs import generator_for
from fermt.data.synthetic import SyntheticConfig, SyntheticPairs, SyntheticSequences, pairs, synthetic_config

CONFIG = ModelConfig()
COUNT, AROUND = 40, 6  # pairs; pixels of background that are measured around a rectangle
STILL = {  # a rectangle that neither turns nor bends, alone in front of one color
    **dict.fromkeys(("rotation", "deformation", "shutter", "distractors", "occluders", "clutter", "light", "noise"), 0),
    "height": 240,
    "width": 320,
    "frames": 20,
    "size": (0.2, 0.3),
    "lookalike": 0,
    "camera": 0,
    "min_visible": 1.0,
}


@pytest.fixture
def config(tmp_path: Path) -> SyntheticConfig:
    """Red rectangles of 60 x 40 parts in front of blue."""
    rectangle = np.zeros((60, 90, 4), np.uint8)
    rectangle[10:50, 15:75] = (0, 0, 255, 255)  # BGR
    for name, image in (("objects", rectangle), ("backgrounds", np.full((64, 64, 3), (255, 0, 0), np.uint8))):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), image)
    folders = {name: str(tmp_path / name) for name in ("objects", "backgrounds")}
    return dataclasses.replace(synthetic_config("easy"), **STILL, **folders)


def seen(crop: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The rectangle in a crop: (4,) left, top, right, bottom, by the light that its edges let through.

    None unless there is background around `box`, (4,) left, top, right, bottom, on all sides.
    """
    low, high = np.floor(box[:2]).astype(int) - AROUND, np.ceil(box[2:]).astype(int) + AROUND
    if low.min() < 0 or high.max() > CONFIG.search_size:
        return None
    part = crop[low[1] : high[1], low[0] : high[0]].astype(float)
    red, blue = part[..., 0], part[..., 2]
    if red[[0, -1]].max() > 60 or np.maximum(blue[[0, -1]].min(), blue[:, [0, -1]].min()) < 100:
        return None
    inside, outside = np.median(red - blue), np.median((red - blue)[0])
    cover = np.clip((red - blue - outside) / (inside - outside), 0, 1)
    ends = []
    for axis in (0, 1):
        line = cover.mean(axis=axis)
        sides = line / line.max()
        middle = len(line) // 2
        ends.append((middle - sides[:middle].sum(), middle + sides[middle:].sum()))
    return np.array([low[0] + ends[0][0], low[1] + ends[1][0], low[0] + ends[0][1], low[1] + ends[1][1]])


def test_a_known_rectangle_by_both_ways(config: SyntheticConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "PAPER", dataclasses.replace(pairs.PAPER, flip=0.0, gray=0.0))
    source, sequences = SyntheticPairs(CONFIG, 0, COUNT, config), SyntheticSequences(COUNT, 0, config)
    off: dict[str, list[np.ndarray]] = {"synthetic": [], "real": []}
    for i in range(COUNT):
        box = tuple(sequences.annotation(i).boxes[5].tolist())
        view = View(sequences.image(i, 5), box)
        for name, pair in (
            ("synthetic", source.pair(0, i)),
            ("real", make_pair(view, view, CONFIG, NO_AUGMENTATION, generator_for(0, 0, i))),
        ):
            assert pair is not None
            x, y, w, h = (pair["box"].numpy() * CONFIG.search_size).tolist()
            box = np.array((x, y, x + w, y + h))
            if (found := seen(pair["search"].numpy(), box)) is not None:
                off[name].append(found - box)
    for name, errors in off.items():
        assert len(errors) > COUNT / 3, name
        mean = np.mean(errors, axis=0)
        assert np.abs(mean).max() < 0.25, name  # half a pixel off was a fault
