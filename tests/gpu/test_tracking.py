"""Trackers on the GPU of this machine: whole images, on the CPU or the GPU, give what crops from the CPU give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fermt
import fermt_kernels as fk
from benchmarks.gpu import cases
from fermt.tracking import network as networks
from fermt.tracking.brightness import brighten
from fermt.tracking.network import ImageNetwork, ModuleNetwork, PackedNetwork

from ..support.errors import refused
from ..support.tracking import noise

BOXES = [
    (300.0, 200.0, 90.0, 70.0),
    (-30.0, 400.0, 80.0, 120.0),
    (1190.0, 640.0, 120.0, 100.0),
    (10.0, 5.0, 12.0, 12.0),
]
SIZES = ((720, 1280), (720, 1280), (480, 640), (720, 1280), (333, 501), (480, 640))  # more than graphs are kept
FRAMES = [noise(*size, seed=seed) for seed, size in enumerate(SIZES)]
Form = Callable[[np.ndarray], Any]
FORMS: dict[str, tuple[Form, bool]] = {  # an RGB image as it is given, and whether that is BGR
    "an array": (lambda image: image, False),
    "BGR": (lambda image: np.ascontiguousarray(image[..., ::-1]), True),
    "a tensor": (torch.from_numpy, False),
    "pinned": (lambda image: torch.from_numpy(image).pin_memory(), False),
    "on the GPU": (lambda image: torch.from_numpy(image).cuda(), False),
    "BGR on the GPU": (lambda image: torch.from_numpy(image).cuda().flip(2), True),
    "planes on the GPU": (
        lambda image: torch.from_numpy(image).cuda().permute(2, 0, 1).contiguous().permute(1, 2, 0),
        False,
    ),
    "with alpha on the GPU": (lambda image: torch.from_numpy(image[..., [0, 1, 2, 0]]).cuda(), False),
}


@pytest.fixture(scope="module")
def packed() -> fk.frame.CudaPackedModel:
    made = fk.frame.pack(cases.model(small=False).cuda(), torch.bfloat16, backend="triton")
    assert isinstance(made, fk.frame.CudaPackedModel)
    return made


@pytest.fixture
def by_crops(packed: fk.frame.CudaPackedModel, monkeypatch: pytest.MonkeyPatch) -> fermt.MultiTracker:
    """A tracker whose search regions are cut out on the CPU."""
    with monkeypatch.context() as patch:
        patch.setattr(networks, "ImageNetwork", PackedNetwork)
        made = fermt.MultiTracker(packed)
    assert not isinstance(made.network, ImageNetwork)
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_images_give_what_crops_give(
    packed: fk.frame.CudaPackedModel, by_crops: fermt.MultiTracker, form: str, count: int
) -> None:
    given, bgr = FORMS[form]
    tracker = fermt.MultiTracker(packed, bgr=bgr)
    assert isinstance(tracker.network, ImageNetwork)
    for box in BOXES[:count]:
        tracker.add(given(FRAMES[0]), box)
        by_crops.add(FRAMES[0], box)
    for image in FRAMES:
        assert tracker.update(given(image)) == by_crops.update(image)


@pytest.mark.parametrize("form", FORMS)
def test_the_model_itself_takes_them_too(form: str) -> None:
    given, bgr = FORMS[form]
    exact = cases.model(small=False).cuda()
    got, expected = (fermt.Tracker(exact, refresh_every=2, refresh_above=0.0, bgr=each) for each in (bgr, False))
    assert isinstance(got.network, ModuleNetwork)
    got.init(given(FRAMES[0]), BOXES[0])
    expected.init(FRAMES[0], BOXES[0])
    for image in FRAMES:
        found, known = got.update(given(image)), expected.update(image)
        assert (*found.box, found.score) == pytest.approx((*known.box, known.score), rel=1e-5)  # cuDNN may choose anew


def test_an_image_elsewhere_than_the_model_is_refused(packed: fk.frame.CudaPackedModel) -> None:
    there = torch.from_numpy(FRAMES[0]).cuda()
    with refused(ValueError, "image", "cpu", there.device):
        fermt.Tracker(cases.model(small=True)).init(there, BOXES[0])
    with refused(TypeError, "image", torch.float32):
        fermt.Tracker(packed).init(there.float(), BOXES[0])
    with refused(ValueError, "image", (3, 720, 1280)):
        fermt.Tracker(packed).init(there.permute(2, 0, 1), BOXES[0])


def test_a_dark_image_on_the_gpu_is_brightened_as_one_on_the_cpu() -> None:
    dark = FRAMES[0] // 6
    assert torch.equal(brighten(torch.from_numpy(dark).cuda()).cpu(), torch.from_numpy(brighten(dark)))
