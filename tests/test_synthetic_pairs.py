"""Training pairs and batches of the synthetic data set: reproducible, placed as the paper does, true to the frames."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from fermt import ModelConfig
from fermt.data import crop_target, target_square
from fermt.data.synthetic import SyntheticPairs, SyntheticSequences, synthetic_config
from fermt.data.synthetic.render import View, render
from fermt.data.synthetic.scene import Scene, World

from .support.errors import refused

MODEL = ModelConfig(template_size=64, search_size=128)
SMALL = {"height": 180, "width": 320, "frames": 60}  # of frames, where not all of them is looked at
FINE = 4  # pixels of a mask for one of the search region


def test_pairs_are_the_same_in_any_order_and_differ_by_epoch_and_index() -> None:
    first, second = (SyntheticPairs(MODEL, 3, 100, synthetic_config("standard", **SMALL)) for _ in range(2))
    asked = [(0, 0), (0, 1), (1, 0), (5, 99)]
    made = [first.pair(*place) for place in asked]
    for place, pair in reversed(list(zip(asked, made, strict=True))):
        again = second.pair(*place)
        assert all(torch.equal(pair[name], again[name]) for name in ("template", "search", "box"))
    searches = [pair["search"].numpy().tobytes() for pair in made]
    assert len(set(searches)) == len(searches)


def test_sources_go_to_workers() -> None:
    pairs = SyntheticPairs(MODEL, 3, 100, synthetic_config("standard", **SMALL))
    expected = pairs.pair(0, 5)
    again = pickle.loads(pickle.dumps(pairs)).pair(0, 5)
    assert torch.equal(expected["search"], again["search"])


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, torch.Tensor]]:
    source = SyntheticPairs(MODEL, 11, 200, synthetic_config("standard"))
    return [source.pair(0, i) for i in range(200)]


def check_statistics(boxes: np.ndarray) -> None:
    """As the paper's jitter has them: anywhere in the crop, about a quarter of it a side."""
    center, size = boxes[:, :2] + 0.5 * boxes[:, 2:], np.sqrt(boxes[:, 2:].prod(axis=1))
    assert ((center > 0.05) & (center < 0.95)).all()
    np.testing.assert_allclose(center.mean(axis=0), 0.5, atol=0.06)
    np.testing.assert_allclose(center.std(axis=0), 0.375 / 3**0.5, atol=0.05)
    assert abs(np.exp(np.log(size).mean()) - 0.25) < 0.03
    assert 0.1 < size.min() < size.max() < 0.7
    inside = np.clip(boxes[:, :2] + boxes[:, 2:], 0, 1) - np.clip(boxes[:, :2], 0, 1)
    assert (inside.prod(axis=1) / boxes[:, 2:].prod(axis=1) > 0.99).mean() > 0.6


def test_pairs_have_the_form_and_the_statistics_of_the_recipe(pairs: list[dict[str, torch.Tensor]]) -> None:
    for pair in pairs:
        assert pair["template"].shape == (64, 64, 3)
        assert pair["search"].shape == (128, 128, 3)
        assert pair["template"].dtype == pair["search"].dtype == torch.uint8
        assert pair["box"].shape == (4,)
        assert pair["box"].dtype == torch.float32
    check_statistics(np.stack([pair["box"].numpy() for pair in pairs]))
    gray = [bool((pair["search"] == pair["search"][..., :1]).all()) for pair in pairs]
    assert 0 < sum(gray) < 25


def test_the_target_differs_from_what_is_around_it(pairs: list[dict[str, torch.Tensor]]) -> None:
    apart = []
    for pair in pairs:
        template = pair["template"].numpy().astype(float)
        rest = np.concatenate((template[:10].reshape(-1, 3), template[-10:].reshape(-1, 3)))
        seen = rest[rest.sum(axis=1) > 0]
        if len(seen) > 200:
            apart.append(np.linalg.norm(template[24:40, 24:40].mean(axis=(0, 1)) - seen.mean(axis=0)))
    assert len(apart) > 150
    assert np.mean(np.array(apart) > 20) > 0.85


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_crops_are_those_of_the_frames(factor: float) -> None:
    """A crop drawn at its own resolution is that which `crop_target` cuts out of the frame, to the pixel."""
    config, size = synthetic_config("standard", noise=0.0), 128
    sequences, world = SyntheticSequences(6, 1, config), World(config, 1)
    for i in range(6):
        box = sequences.annotation(i).boxes[30]
        left, top, side = target_square(tuple(box), factor)
        found = render(Scene(world, i), i, 30, View(left, top, size / side, size, size))
        expected = crop_target(sequences.image(i, 30), tuple(box), factor, size).image.astype(int)
        off = {
            (dx, dy): np.abs(np.roll(found, (dy, dx), (0, 1)) - expected)[2:-2, 2:-2].mean()
            for dx in (-1, 0, 1)
            for dy in (-1, 0, 1)
        }
        assert min(off, key=off.__getitem__) == (0, 0), off
        assert off[0, 0] < 4  # gray levels


def test_a_target_that_cannot_be_seen_ends_in_an_error_that_says_so() -> None:
    config = synthetic_config("hard", occluders=8, min_visible=1.0, size=(0.9, 1.0), speed=1.0, **SMALL)
    with refused(RuntimeError, "min_visible", 1.0):
        for index in range(40):
            SyntheticPairs(MODEL, 0, 40, config).pair(0, index)
