"""Augmentations beyond the paper's recipe: what each changes, by how much, and that none changes anything when off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fermt import ModelConfig
from fermt.data import appearance
from fermt.data.augment import NO_AUGMENTATION, View, make_pair

from .support.errors import refused

MODEL = ModelConfig(patterns=("mixed",), dim=32, num_heads=2, template_size=32, search_size=64)
BOX = (40.0, 30.0, 30.0, 24.0)
FIELDS = {
    "rotation": 0.3, "stretch": 0.3, "contrast": 0.5, "color": 0.3, "blur": 1.0, "noise": 10.0, "hidden": 1.0
}  # fmt: skip


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def crop() -> np.ndarray:
    return generator(5).integers(60, 200, (64, 64, 3), np.uint8)


def roughness(image: np.ndarray) -> float:
    return float(
        np.abs(np.diff(image.astype(float), axis=0)).mean() + np.abs(np.diff(image.astype(float), axis=1)).mean()
    )


def test_recolored(crop: np.ndarray) -> None:
    assert np.array_equal(appearance.recolored(crop, 0.0, 0.0, generator()), crop)
    for seed in range(10):
        result = appearance.recolored(crop, 0.2, 0.1, generator(seed)).astype(float)
        gains = [np.polyfit(crop[..., i].ravel(), result[..., i].ravel(), 1)[0] for i in range(3)]
        assert 0.8 * 0.9 - 0.01 <= min(gains) <= max(gains) <= 1.2 * 1.1 + 0.01
        assert np.ptp(gains) > 0.001  # each channel has a gain of its own
        assert abs(appearance.recolored(np.full_like(crop, 128), 0.2, 0.1, generator(seed)).mean() - 128) < 1


def test_blurred_keeps_the_mean_and_takes_detail_away(crop: np.ndarray) -> None:
    results = [appearance.blurred(crop, generator(seed)) for seed in range(30)]
    for result in results:
        assert (result.shape, result.dtype) == (crop.shape, np.uint8)
        assert abs(result.mean() - crop.mean()) < 2
    assert np.mean([roughness(result) < 0.8 * roughness(crop) for result in results]) > 0.8


def test_noisy() -> None:
    flat = np.full((64, 64, 3), 128, np.uint8)
    stds = np.array([appearance.noisy(flat, 8.0, generator(seed)).astype(float).std() for seed in range(40)])
    assert stds.max() < 8.3
    assert 2.5 < stds.mean() < 5.5  # uniform up to the largest
    assert np.array_equal(appearance.noisy(flat, 0.0, generator()), flat)


@pytest.mark.parametrize("box", [(0.3, 0.4, 0.2, 0.3), (-0.2, 0.8, 0.4, 0.4), (0.0, 0.0, 1.0, 1.0)])
def test_hidden_covers_a_part_of_the_target_with_another_part_of_the_crop(
    crop: np.ndarray, box: tuple[float, ...]
) -> None:
    x, y, w, h = (64 * value for value in box)
    for seed in range(10):
        result = appearance.hidden(crop, box, generator(seed))  # type: ignore[arg-type]
        rows, columns = np.nonzero((result != crop).any(axis=2))
        if not len(rows):
            continue  # the patch was taken from where it was put
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        assert bottom - top <= max(2, min(32, 0.8 * h))
        assert right - left <= max(2, min(32, 0.8 * w))
        if box[0] >= 0 and box[1] + box[3] <= 1:
            assert left < x + w
            assert right > x
            assert top < y + h
            assert bottom > y
        assert np.isin(result.reshape(-1, 3).view("u1,u1,u1"), crop.reshape(-1, 3).view("u1,u1,u1")).all()


def pair(seed: int = 0, **values: float) -> dict[str, torch.Tensor]:
    image = generator(9).integers(0, 256, (100, 120, 3), np.uint8)
    view = View(image, BOX)
    made = make_pair(view, view, MODEL, dataclasses.replace(NO_AUGMENTATION, **values), generator(seed))
    assert made is not None
    return made


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_changes_crops_at_random(name: str) -> None:
    plain, first, again, other = (
        pair(),
        pair(1, **{name: FIELDS[name]}),
        pair(1, **{name: FIELDS[name]}),
        pair(2, **{name: FIELDS[name]}),
    )
    assert not torch.equal(first["search"], plain["search"])
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["search"], other["search"])
    if name == "hidden":
        assert torch.equal(first["template"], plain["template"])
    assert torch.equal(first["box"], plain["box"]) is (name not in ("rotation", "stretch"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("blur", 1.1), ("hidden", -0.1), ("rotation", float("inf")), ("noise", float("nan")), ("color", -1.0)],
)
def test_values_out_of_range(name: str, value: float) -> None:
    with refused(ValueError, name, value):
        dataclasses.replace(NO_AUGMENTATION, **{name: value})
