"""Crops, and what is left to chance in them: geometry against the authors' code, and the figures of the recipe."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from fermt.config import ModelConfig
from fermt.data import crop_target
from fermt.data.augment import NO_AUGMENTATION, Augmentation, View, box_in_crop, flipped, jittered, make_pair

from .support import golden
from .support.errors import refused

CONFIG = ModelConfig()
SMALL = ModelConfig(template_size=32, search_size=64)  # a quarter of the pixels on a side
BOX = (150.0, 90.0, 40.0, 26.0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(box: tuple[float, float, float, float] = BOX, height: int = 240, width: int = 360) -> View:
    """A bright, textured target on a dark, textured ground."""
    image = generator(1).integers(0, 60, size=(height, width, 3), dtype=np.uint8)
    x, y, w, h = map(int, box)
    image[y : y + h, x : x + w] = generator(2).integers(180, 255, size=(h, w, 3))
    return View(image, box)


def changed(**values: float) -> Augmentation:
    return dataclasses.replace(NO_AUGMENTATION, **values)


@pytest.mark.parametrize("i", range(6))
def test_a_box_in_a_crop_is_where_the_authors_have_it(i: int) -> None:
    stored = golden.arrays("crops")
    around, box = tuple(stored["boxes_xywh"][i].tolist()), tuple(stored["gt_box_xywh"].tolist())
    factor = crop_target(stored["image"], around, 4.0, 256).resize_factor
    x, y, w, h = box_in_crop(box, around, factor, 256)
    theirs = (x - 0.5 / 256, y - 0.5 / 256, w, h)  # their labels lie half a pixel of the crop to the left and above
    assert np.abs(theirs - stored["gt_in_search_crops_normalized"][i]).max() < 1e-12


@pytest.mark.parametrize("i", range(6))
def test_without_chance_the_crops_are_the_authors(i: int) -> None:
    stored = golden.arrays("crops")
    view = View(stored["image"], tuple(stored["boxes_xywh"][i].tolist()))
    pair = make_pair(view, view, CONFIG, NO_AUGMENTATION, generator())
    assert pair is not None
    assert np.array_equal(pair["template"].numpy(), stored["template_crops"][i])
    assert np.array_equal(pair["search"].numpy(), stored["search_crops"][i])
    center = pair["box"][:2] + pair["box"][2:] / 2
    assert center.tolist() == pytest.approx([0.5] * 2)


def bright(crop: np.ndarray) -> np.ndarray:
    """The xywh box of the target of `scene` in a crop, in its pixels."""
    rows, columns = (np.flatnonzero((crop.min(axis=2) > 120).any(axis=axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]])


def test_the_box_is_where_the_target_is_seen() -> None:
    """Whatever is left to chance. A crop starts at a whole pixel of the image, and interpolation blurs edges."""
    view, rng, sides = scene(), generator(), set()
    augmentation = Augmentation(flip=0.5, gray=0.2, brightness=0.1)
    for _ in range(60):
        pair = make_pair(view, view, CONFIG, augmentation, rng)
        assert pair is not None
        box = pair["box"].numpy() * 256
        if min(box[:2]) < 2 or max(box[:2] + box[2:]) > 254:
            continue
        scale = box[2] / BOX[2]
        assert np.abs(bright(pair["search"].numpy()) - box).max() <= 1.5 * scale + 1
        sides.add(bool(box[0] > 100))
    assert sides == {True, False}


def test_jitter_has_the_figures_of_the_recipe() -> None:
    rng, n = generator(), 20_000
    boxes = np.array([jittered(BOX, 3.0, 0.25, rng) for _ in range(n)])
    logs = np.log(boxes[:, 2:] / BOX[2:])
    assert np.abs(logs.mean(axis=0)).max() < 5 * 0.25 / math.sqrt(n)
    assert np.abs(logs.std(axis=0) - 0.25).max() < 5 * 0.25 / math.sqrt(2 * n)
    assert abs(np.corrcoef(logs.T)[0, 1]) < 5 / math.sqrt(n)
    centers = boxes[:, :2] + boxes[:, 2:] / 2 - (np.array(BOX[:2]) + np.array(BOX[2:]) / 2)
    offsets = centers / np.sqrt(boxes[:, 2:].prod(axis=1, keepdims=True))  # uniform in [-1.5, 1.5]
    assert np.abs(offsets).max() <= 1.5
    assert np.abs(offsets).max(axis=0).min() > 1.49
    for column in offsets.T:
        found, _ = np.histogram(column, bins=10, range=(-1.5, 1.5))
        assert np.abs(found - n / 10).max() < 5 * math.sqrt(n * 0.1 * 0.9)
    assert jittered(BOX, 0.0, 0.0, rng) == BOX


def test_a_search_crop_is_the_crop_around_a_jittered_box() -> None:
    view = scene()
    pair = make_pair(view, view, CONFIG, changed(search_center=3.0, search_scale=0.25), generator(7))
    assert pair is not None
    rng = generator(7)
    jittered(BOX, 0.0, 0.0, rng)  # the template's, which draws numbers, too
    around = jittered(BOX, 3.0, 0.25, rng)
    crop = crop_target(view.image, around, 4.0, 256)
    assert np.array_equal(pair["search"].numpy(), crop.image)
    assert pair["box"].tolist() == pytest.approx(box_in_crop(BOX, around, crop.resize_factor, 256))
    assert np.array_equal(pair["template"].numpy(), crop_target(view.image, BOX, 2.0, 128).image)


def test_a_flip_turns_both_crops_and_the_box() -> None:
    view, off = scene(), changed(search_center=3.0)
    for seed in range(5):
        plain, turned = (
            make_pair(view, view, SMALL, dataclasses.replace(off, flip=p), generator(seed)) for p in (0.0, 1.0)
        )
        assert plain is not None
        assert turned is not None
        for name in ("template", "search"):
            assert np.array_equal(turned[name].numpy(), plain[name].numpy()[:, ::-1])
        x, y, w, h = plain["box"].tolist()
        assert turned["box"].tolist() == pytest.approx([1 - x - w, y, w, h])
    box = (0.2, 0.3, 0.4, 0.5)
    assert flipped(flipped(box)) == pytest.approx(box)


def test_gray_is_gray_in_both_crops() -> None:
    view = scene()
    plain, gray = (make_pair(view, view, SMALL, changed(gray=p), generator()) for p in (0.0, 1.0))
    assert plain is not None
    assert gray is not None
    for name in ("template", "search"):
        expected = plain[name].numpy() @ np.array([0.299, 0.587, 0.114])
        assert np.abs(gray[name].numpy() - expected[..., None]).max() <= 1
    assert np.array_equal(plain["box"], gray["box"])


def test_brightness_is_a_factor_for_each_crop() -> None:
    view, rng = View(np.full((90, 90, 3), 100, np.uint8), (40.0, 40.0, 10.0, 10.0)), generator()
    factors = np.empty((2000, 2))
    for row in factors:
        pair = make_pair(view, view, SMALL, changed(brightness=0.2), rng)
        assert pair is not None
        values = {name: np.unique(pair[name].numpy()) for name in ("template", "search")}
        assert all(len(found) == 1 for found in values.values())
        row[:] = [values[name][0] / 100 for name in ("template", "search")]
    assert (factors.min(), factors.max()) == (0.8, 1.2)
    assert np.abs(factors.mean(axis=0) - 1).max() < 5 * 0.4 / math.sqrt(12 * len(factors))
    assert abs(np.corrcoef(factors.T)[0, 1]) < 5 / math.sqrt(len(factors))
    light = View(np.full((90, 90, 3), 250, np.uint8), view.box)
    brightest = 0
    for seed in range(20):
        pair = make_pair(light, light, SMALL, changed(brightness=0.2), generator(seed))
        assert pair is not None
        assert pair["search"].min() >= 200  # nothing wraps around
        brightest = max(brightest, int(pair["search"].max()))
    assert brightest == 255


def test_chances_are_those_asked_for() -> None:
    view, rng, n = scene((30.0, 20.0, 12.0, 10.0), 64, 96), generator(), 3000
    plain = make_pair(view, view, SMALL, NO_AUGMENTATION, rng)
    assert plain is not None
    counts, lightness = np.zeros(2), plain["search"].numpy().mean(axis=2)
    for _ in range(n):
        pair = make_pair(view, view, SMALL, changed(flip=0.5, gray=0.05), rng)
        assert pair is not None
        search = pair["search"].numpy()
        gray = bool((search == search[..., :1]).all())
        as_it_was, other = (np.abs(search.mean(axis=2) - known).sum() for known in (lightness, lightness[:, ::-1]))
        counts += other < as_it_was, gray
    for count, chance in zip(counts, (0.5, 0.05), strict=True):
        assert abs(count - n * chance) < 5 * math.sqrt(n * chance * (1 - chance))


@pytest.mark.parametrize(
    "box",
    [
        (400.0, 90.0, 40.0, 26.0),  # beyond the image, though the crop meets it
        (359.0, 90.0, 6.0, 6.0),  # on the last column, which crops have black
        (-39.0, 90.0, 40.0, 26.0),  # a single column is left
        (20.0, 90.0, 300.0, 0.05),  # a line
        (1e6, 1e6, 40.0, 26.0),
    ],
)
def test_a_target_that_is_hardly_seen_gives_no_pair(box: tuple[float, float, float, float]) -> None:
    view = scene()
    assert make_pair(view, View(view.image, box), CONFIG, NO_AUGMENTATION, generator()) is None
    assert make_pair(View(view.image, box), view, CONFIG, NO_AUGMENTATION, generator()) is None


def test_images_of_any_size_give_pairs() -> None:
    for height, width, box in ((2, 400, (0.0, 0.0, 200.0, 1.0)), (30, 30, (-5.0, -5.0, 45.0, 45.0))):
        image = np.zeros((height, width, 3), np.uint8)
        pair = make_pair(View(image, box), View(image, box), CONFIG, NO_AUGMENTATION, generator())
        assert pair is None or pair["search"].shape == (256, 256, 3)
    huge = View(cv2.resize(scene().image, (3000, 2000)), (0.0, 0.0, 2990.0, 1990.0))
    assert make_pair(huge, huge, CONFIG, NO_AUGMENTATION, generator()) is not None


@pytest.mark.parametrize(
    ("name", "value"), [("flip", 1.5), ("gray", -0.1), ("search_scale", math.nan), ("brightness", math.inf)]
)
def test_figures_out_of_range_are_refused(name: str, value: float) -> None:
    with refused(ValueError, name, value):
        Augmentation(**{name: value})
