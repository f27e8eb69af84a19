"""A whole image in and boxes out, in Triton's interpreter: to the bit what a frame of crops gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.tracking import network as networks
from fermt.tracking.network import ImageNetwork, PackedNetwork
from fermt.tracking.views import View, locate
from fermt_kernels.triton.launch import recording

from ..support.device_frames import crops_of, model_of, pack
from ..support.errors import refused
from ..support.lanes import slow
from ..support.tracking import noise, steady_model

pytestmark = pytest.mark.usefixtures("few_programs")

SIZES = ((35, 50), (70, 41), (35, 50), (2, 3), (35, 50))  # the first is used again, when it is known and when it is not
# Inside, across each border and corner, around the whole image, where one pixel is left of it, and a single pixel.
SQUARES = [
    *([8, 9, 20], [-7, 9, 18], [8, -7, 18], [40, 9, 18], [8, 28, 18]),
    *([-9, -9, 12], [44, 30, 15], [-60, -70, 190], [-16, 3, 17], [48, 33, 9], [13, 11, 1]),
]


def draw(height: int, width: int) -> Tensor:
    return torch.randint(256, (height, width, 3), dtype=torch.uint8)


@pytest.fixture(scope="module")
def packed() -> fk.frame.CudaPackedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return pack(model_of(patterns=("mixed",)), torch.float16)


@pytest.fixture(scope="module")
def caches(packed: fk.frame.CudaPackedModel) -> Tensor:
    return fk.frame.encode_template(packed, crops_of(packed, 3)[0])


def by_crops(
    packed: fk.frame.CudaPackedModel, caches: Any, image: Tensor, squares: Tensor, window: Tensor | None = None
) -> Tensor:
    crops = fk.reference.crop(image, squares, packed.search_size)
    return fk.frame.track_frame(packed, caches, crops, boxes=True, window=window)["boxes"]


@pytest.mark.parametrize("first", [0, slow(3), slow(6), slow(8)])
def test_it_is_a_frame_of_crops(packed: fk.frame.CudaPackedModel, caches: Tensor, first: int) -> None:
    workspace, image, squares = fk.frame.Workspace(), draw(35, 50), torch.tensor(SQUARES[first : first + 3])
    got = fk.frame.track_image(packed, caches, image, squares, workspace=workspace)
    assert (got.shape, got.dtype) == ((3, 5), torch.float32)
    assert torch.equal(got, by_crops(packed, caches, image, squares))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["center", "corner"])
def test_images_of_several_sizes_one_after_the_other(head: str) -> None:
    """Of memory that still has other pixels around what is copied."""
    packed, workspace = pack(model_of(head, patterns=("mixed",))), fk.frame.Workspace()
    caches, window = fk.frame.encode_template(packed, crops_of(packed, 2)[0]), torch.rand(3, 3)
    kept = []
    for turn, (height, width) in enumerate(SIZES):
        image = draw(height, width)
        squares = torch.tensor([[-turn, turn - 3, 9 + turn], [width - 3, height - 3 - turn, 8]]).int()
        got = fk.frame.track_image(packed, list(caches), image, squares, workspace=workspace, window=window)
        expected = by_crops(packed, caches, image, squares, window)
        kept.append((got, expected))
    for got, expected in kept:  # a later frame leaves an earlier one's boxes
        assert torch.equal(got, expected)


LAYOUTS = {
    "BGR": (lambda x: x.flip(2), {"bgr": True}),
    "planes": (lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0), {}),
    "a window, BGR": (
        lambda x: torch.nn.functional.pad(x.flip(2), (1, 0, 2, 2, 3, 3))[3:-3, 2:-2, 1:],
        {"bgr": True},
    ),
}


@pytest.mark.parametrize("layout", ["BGR", *(slow(name) for name in LAYOUTS if name != "BGR")])
def test_images_of_any_layout(packed: fk.frame.CudaPackedModel, caches: Tensor, layout: str) -> None:
    image, squares = draw(35, 50), torch.tensor(SQUARES[4:5])
    laid, how = LAYOUTS[layout]
    got = fk.frame.track_image(packed, caches[:1], laid(image), squares, **how)
    assert torch.equal(got, by_crops(packed, caches[:1], image, squares))


def test_a_frame_is_one_launch_more(packed: fk.frame.CudaPackedModel) -> None:
    from fermt_kernels.triton import make_frame

    frame = make_frame(packed.weights, packed.sizes, 3)
    with recording() as alone:
        frame.track()
    with recording() as whole:
        frame.track_image(draw(35, 50), bgr=False)
    assert [each.kernel for each in whole[1:]] == [each.kernel for each in alone]
    assert whole[0].kernel.fn.__name__ == "crop_kernel"
    assert whole[0].arguments["out_ptr"] is frame.searches


BAD: dict[str, tuple[dict[str, Any], type[Exception], tuple[object, ...]]] = {
    "an array": ({"image": noise(35, 50)}, TypeError, ("image", "uint8", "ndarray")),
    "floats": ({"image": torch.zeros(35, 50, 3)}, TypeError, ("image", "uint8", torch.float32)),
    "planes": ({"image": draw(35, 50).permute(2, 0, 1)}, ValueError, ("image", "(H, W, 3)", (3, 35, 50))),
    "another device": ({"image": draw(35, 50).to("meta")}, ValueError, ("image", "the CPU", "meta")),
    "squares elsewhere": ({"squares": torch.tensor(SQUARES[:3]).to("meta")}, ValueError, ("squares", "meta")),
    "a list": ({"squares": SQUARES[:3]}, TypeError, ("squares", "list")),
    "fractions": ({"squares": torch.ones(3, 3)}, TypeError, ("squares", "int64", torch.float32)),
    "boxes": ({"squares": torch.ones(3, 4, dtype=torch.int64)}, ValueError, ("squares", "(B, 3)", (3, 4))),
    "none": ({"squares": torch.ones(0, 3, dtype=torch.int64)}, ValueError, ("squares", 1, (0, 3))),
    "no side": ({"squares": torch.tensor([[1, 1, 5], [1, 1, 0], [1, 1, 5]])}, ValueError, ((1, 1, 0), 1)),
    "outside": ({"squares": torch.tensor([[1, 1, 5], [1, 1, 5], [49, 3, 5]])}, ValueError, ((49, 3, 5), "50 x 35")),
    "fewer targets": ({"squares": torch.tensor(SQUARES[:2])}, ValueError, ("caches", 2, 3)),
    "a name": ({"bgr": "BGR"}, TypeError, ("bgr", "'BGR'")),
    "a window": ({"window": torch.ones(4, 4)}, ValueError, ("window", (3, 3), (4, 4))),
    "no workspace": ({"workspace": 5}, TypeError, ("Workspace", "int")),
    "no model": ({"packed": 5}, TypeError, ("packed", "int")),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_refused(packed: fk.frame.CudaPackedModel, caches: Tensor, bad: str) -> None:
    given, error, values = BAD[bad]
    usual = {"packed": packed, "caches": caches, "image": draw(35, 50), "squares": torch.tensor(SQUARES[:3])}
    with refused(error, "track_image", *values):
        fk.frame.track_image(**usual | given)


BOXES = [(14.0, 9.0, 12.0, 11.0), (-3.0, 20.0, 11.0, 12.5), (40.0, 2.0, 14.0, 10.0)]
FRAMES = [noise(40, 56, seed=seed) for seed in range(2)]


@pytest.fixture(scope="module")
def steady() -> fk.frame.CudaPackedModel:
    return pack(steady_model())


def tracker_by_crops(
    monkeypatch: pytest.MonkeyPatch, kind: Any, packed: fk.frame.CudaPackedModel, **options: Any
) -> Any:
    """One whose search regions are cut out on the CPU."""
    with monkeypatch.context() as patch:
        patch.setattr(networks, "ImageNetwork", PackedNetwork)
        made = kind(packed, **options)
    assert not isinstance(made.network, ImageNetwork)
    return made


FORMS = {
    "RGB": (lambda image: image, {}),
    "BGR": (lambda image: np.ascontiguousarray(image[..., ::-1]), {"bgr": True}),
    "BGR, from right to left": (lambda image: image[..., ::-1], {"bgr": True}),
    "a tensor": (torch.from_numpy, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_tracker_hands_over_images(
    steady: fk.frame.CudaPackedModel, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    made, how = FORMS[form]
    got, expected = fermt.Tracker(steady, **how), tracker_by_crops(monkeypatch, fermt.Tracker, steady)
    assert isinstance(got.network, ImageNetwork)
    got.init(made(FRAMES[0]), BOXES[0])
    expected.init(FRAMES[0], BOXES[0])
    for image in FRAMES:
        assert got.update(made(image)) == expected.update(image)


@pytest.mark.slow
def test_so_does_a_tracker_of_many_in_batches_of_powers_of_two(
    steady: fk.frame.CudaPackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    got, expected = fermt.MultiTracker(steady), tracker_by_crops(monkeypatch, fermt.MultiTracker, steady)
    batches, right = [], fk.frame.track_image

    def seen(packed: Any, caches: Any, image: Tensor, squares: Tensor, **more: Any) -> Tensor:
        batches.append((len(caches), len(squares)))
        return right(packed, caches, image, squares, **more)

    monkeypatch.setattr(fk.frame, "track_image", seen)
    for box in BOXES:
        got.add(FRAMES[0], box)
        expected.add(FRAMES[0], box)
    assert got.update(FRAMES[1]) == expected.update(FRAMES[1])
    got.drop(2)
    expected.drop(2)
    assert got.update(FRAMES[0]) == expected.update(FRAMES[0])
    assert batches == [(4, 4), (2, 2)]


@pytest.mark.slow
def test_targets_in_different_images_are_cut_out_one_by_one(steady: fk.frame.CudaPackedModel) -> None:
    network = ImageNetwork(steady)
    views = [
        View(image, square, False)
        for image, square in zip((*FRAMES, FRAMES[0]), ((3, 4, 20), (-2, 5, 17), (30, 20, 25)), strict=True)
    ]
    encoded = [[network.encode(view.crop(network.template_size))] for view in views]
    together = locate(network, encoded, views)
    assert together.shape == (3, 5)
    assert torch.equal(together, torch.cat([locate(network, encoded[i : i + 1], views[i : i + 1]) for i in range(3)]))
