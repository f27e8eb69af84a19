"""Training pairs and batches of the synthetic data set: reproducible, placed as the paper does, true to the frames."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from fermt import ModelConfig
from fermt.data import crop_target
from fermt.data.synthetic import PRESETS, SyntheticBatches, SyntheticPairs, SyntheticSequences, synthetic_config
from fermt.data.synthetic.protocol import squares
from fermt.data.synthetic.render import View, render
from fermt.data.synthetic.scene import Scene, World

from .support.masks import edges_of

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
    grey = [bool((pair["search"] == pair["search"][..., :1]).all()) for pair in pairs]
    assert 0 < sum(grey) < 25


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
        left, top, side = squares(box, factor).tolist()
        found = render(Scene(world, i), i, 30, View(left, top, size / side, size, size))
        expected = crop_target(sequences.image(i, 30), tuple(box), factor, size).image.astype(int)
        off = {
            (dx, dy): np.abs(np.roll(found, (dy, dx), (0, 1)) - expected)[2:-2, 2:-2].mean()
            for dx in (-1, 0, 1)
            for dy in (-1, 0, 1)
        }
        assert min(off, key=off.__getitem__) == (0, 0), off
        assert off[0, 0] < 4  # grey levels


def test_a_target_that_cannot_be_seen_ends_in_an_error_that_says_so() -> None:
    config = synthetic_config("hard", occluders=8, min_visible=1.0, size=(0.9, 1.0), speed=1.0, **SMALL)
    with pytest.raises(RuntimeError, match="min_visible is 1"):
        for index in range(40):
            SyntheticPairs(MODEL, 0, 40, config).pair(0, index)


@pytest.mark.parametrize("name", PRESETS)
def test_boxes_of_batches_are_those_of_their_masks(name: str) -> None:
    """On search regions four times as large as those of a small model."""
    model = dataclasses.replace(MODEL, search_size=FINE * MODEL.search_size)
    batches = SyntheticBatches(model, 8, 5, 320, synthetic_config(name))
    off = []
    for index in range(2):
        masks, boxes = batches.masks(0, index)
        for mask, box in zip(masks.numpy(), boxes.numpy() * model.search_size, strict=True):
            edges = np.concatenate((box[:2], box[:2] + box[2:]))
            if edges.min() >= 1 and edges.max() <= model.search_size - 1:  # all of it is in the crop
                off.append(np.abs(edges_of(mask > 0.5) - edges).max() / FINE)
    assert len(off) > 7
    assert max(off) < 0.6  # pixels of a search region of usual size


def test_batches_are_reproducible_and_have_the_form_and_the_statistics_of_the_recipe() -> None:
    config = synthetic_config("standard")
    batches = SyntheticBatches(MODEL, 32, 5, 100, config)
    assert len(batches) == 3
    made = list(batches.epoch(1))
    again = next(SyntheticBatches(MODEL, 32, 5, 100, config).epoch(1, start=2))
    assert len(made) == 3
    assert all(torch.equal(made[2][name], again[name]) for name in ("template", "search", "box"))
    assert not torch.equal(made[0]["search"], made[1]["search"])
    for batch in made:
        assert batch["template"].shape == (32, 64, 64, 3)
        assert batch["search"].shape == (32, 128, 128, 3)
        assert batch["template"].dtype == batch["search"].dtype == torch.uint8
        assert batch["box"].dtype == torch.float32
    check_statistics(torch.cat([batch["box"] for batch in made]).numpy())


def test_targets_of_batches_are_seen_where_the_boxes_are() -> None:
    """Without anything else in the picture, what differs from the background is the target."""
    plain = {"distractors": 0, "occluders": 0, "clutter": 0, "noise": 0.0, "shutter": 0.0, "light": 0.0, "camera": 0.0}
    batches = SyntheticBatches(MODEL, 16, 2, 16, synthetic_config("easy", **plain))
    search, boxes = batches.batch(0, 0)["search"].float(), batches.batch(0, 0)["box"] * MODEL.search_size
    for image, (x, y, w, h) in zip(search, boxes.tolist(), strict=True):
        line = torch.arange(MODEL.search_size) + 0.5
        across, down = (line > x) & (line < x + w), (line > y) & (line < y + h)
        within = across[None] & down[:, None]
        middle = ((line - x - w / 2).abs() < w / 8)[None] & ((line - y - h / 2).abs() < h / 8)[:, None]
        rest = image[~within & (image.sum(dim=-1) > 0)]
        assert (image[middle].mean(dim=0) - rest.mean(dim=0)).norm() > 25
