"""Images that are tensors, on the CPU or on a GPU, and squares around targets as networks take them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.data import Square, crop_square, crop_target, meeting_square
from fermt.tracking import views as module
from fermt.tracking.images import check_image, to_tensor
from fermt.tracking.network import ImageNetwork, ModuleNetwork
from fermt.tracking.views import View, locate

from .support.errors import refused
from .support.packed import small_model
from .support.tracking import Scripted, follow, follow_many, noise, rows, steady_model

RGB, GRAY, ALPHA = noise(90, 120), noise(90, 120, 1, seed=1), noise(90, 120, 1, seed=2)
BOX = (40.0, 30.0, 25.5, 22.25)
SQUARES = [Square(20, 12, 60), Square(-9, -4, 33), Square(90, 70, 41)]
NOWHERE = torch.device("meta")  # in the place of a GPU


def locked(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image.setflags(write=False)
    return image


FORMS: dict[str, tuple[np.ndarray, np.ndarray]] = {  # and the pixels in the same order of channels
    "color": (RGB, RGB),
    "with alpha": (np.concatenate((RGB, ALPHA), axis=2), RGB),
    "gray": (GRAY, np.repeat(GRAY, 3, axis=2)),
    "gray, 2-D": (GRAY[..., 0], np.repeat(GRAY, 3, axis=2)),
}
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda image: image,
    "read-only": locked,
    "upside down": lambda image: np.ascontiguousarray(image[::-1])[::-1],
    "every other": lambda image: image.repeat(2, axis=0).repeat(3, axis=1)[::2, ::3],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tensor_of_an_image(form: str, layout: str) -> None:
    given, expected = FORMS[form]
    image = LAYOUTS[layout](given)
    got = to_tensor(image)
    assert np.array_equal(got.numpy(), expected)
    assert np.shares_memory(got.numpy(), image) == (layout in ("as it is", "every other"))
    if layout == "as it is":
        tensor = torch.from_numpy(image)
        assert check_image(tensor) == (90, 120)
        assert to_tensor(tensor).data_ptr() == tensor.data_ptr()
        assert torch.equal(to_tensor(tensor), got)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (torch.zeros(9, 9, 3), "torch.float32"),
        (torch.zeros(9, 9, 3, dtype=torch.int8), "torch.int8"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), (3, 9, 9)),
        (torch.zeros(1, 9, 9, 3, dtype=torch.uint8), (1, 9, 9, 3)),
        (torch.zeros(1, 9, 3, dtype=torch.uint8), (1, 9, 3)),
    ],
)
def test_tensors_that_are_no_images(image: Tensor, got: object) -> None:
    for device in (torch.device("cpu"), NOWHERE):
        with refused((TypeError, ValueError), "image", "uint8", "(H, W, 3)", got):
            check_image(image.to(device), NOWHERE)


def test_an_image_is_on_the_cpu_or_where_the_model_is() -> None:
    image = torch.from_numpy(RGB)
    assert check_image(image, NOWHERE) == check_image(image.to(NOWHERE), NOWHERE) == (90, 120)
    with refused(ValueError, "image", "cpu", "meta"):
        check_image(image.to(NOWHERE))
    network = Scripted(rows([0.9]))
    one, many = follow(network), follow_many(network)
    one.init(image, BOX)
    many.add(image, BOX)
    for call in (
        lambda: one.update(image.to(NOWHERE)),
        lambda: one.reinit(image.to(NOWHERE), BOX),
        lambda: one.init(image.to(NOWHERE), BOX),
        lambda: many.update(image.to(NOWHERE)),
        lambda: many.add(image.to(NOWHERE), BOX),
        lambda: many.reinit(0, image.to(NOWHERE), BOX),
    ):
        with refused(ValueError, "image", "cpu", "meta"):
            call()


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_on_the_cpu_is_tracked_as_its_array(form: str, bgr: bool) -> None:
    image, (one, other) = FORMS[form][0], (Scripted(rows([0.9])), Scripted(rows([0.9])))
    for network, given in ((one, torch.from_numpy(image)), (other, image)):
        tracker = follow(network, bgr=bgr)
        tracker.init(given, BOX)
        tracker.update(given)
    for got, expected in zip(one.templates + one.searches, other.templates + other.searches, strict=True):
        assert isinstance(got, np.ndarray)
        assert np.array_equal(got, expected)


def test_a_crop_of_a_square_is_that_of_its_box() -> None:
    for factor in (1.0, 2.0, 5.0):
        got, expected = crop_square(RGB, meeting_square(BOX, factor, 90, 120), 32), crop_target(RGB, BOX, factor, 32)
        assert np.array_equal(got.image, expected.image)
        assert got[1:] == expected[1:]


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_an_image_on_a_gpu_is_cut_there(form: str, bgr: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    image, right = FORMS[form][0], fk.frame.crop

    def crop(there: Tensor, squares: Tensor, size: int) -> Tensor:
        assert (there.device, there.shape) == (NOWHERE, (90, 120, 3))
        return right(to_tensor(image), squares, size)

    monkeypatch.setattr(fk.frame, "crop", crop)
    for square in SQUARES:
        got = View(torch.from_numpy(image).to(NOWHERE), square, bgr).crop(32)
        assert isinstance(got, Tensor)
        assert np.array_equal(got.numpy(), View(image, square, bgr).crop(32))


def test_the_model_itself_takes_crops_that_are_tensors() -> None:
    network = ModuleNetwork(small_model("center"))
    template, searches = noise(16, 16), np.stack([noise(32, 32, seed=seed) for seed in (1, 2)])
    encoded = network.encode(template)
    with torch.inference_mode():
        assert torch.equal(network.encode(torch.from_numpy(template)), encoded)
        got, expected = (network.locate([[encoded]] * 2, each) for each in (torch.from_numpy(searches), searches))
    assert torch.equal(got, expected)


class Whole(ImageNetwork):
    """Keeps what it is asked for, and finds as many targets as there are squares or crops."""

    search_size, search_factor, template_factor, device = 32, 4.0, 2.0, torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def locate(self, encoded, searches):  # type: ignore[no-untyped-def]
        self.asked.append(("crops", len(encoded), searches))
        return torch.zeros(len(searches), 5)

    def locate_image(self, encoded, image, squares, bgr):  # type: ignore[no-untyped-def]
        self.asked.append((len(encoded), image, squares.tolist(), bgr))
        return torch.zeros(len(squares), 5)


def test_one_image_is_handed_over_and_several_are_cut_up() -> None:
    network, encoded = Whole(), [[torch.zeros(1)]] * 3
    for bgr in (False, True):
        assert locate(network, encoded, [View(RGB, square, bgr) for square in SQUARES]).shape == (3, 5)
        count, image, squares, how = network.asked.pop()
        assert (count, squares, how) == (3, [list(square) for square in SQUARES], bgr)
        assert np.shares_memory(image.numpy(), RGB)
    assert locate(network, encoded[:1], [View(RGB, SQUARES[0], False)], min_batch=3).shape == (3, 5)
    count, _, squares, _ = network.asked.pop()
    assert (count, squares) == (3, [list(SQUARES[0])] * 3)
    for other in (View(RGB.copy(), SQUARES[1], False), View(RGB, SQUARES[1], True)):
        views = [View(RGB, SQUARES[0], False), other]
        locate(network, encoded[:2], views, min_batch=3)
        what, count, crops = network.asked.pop()
        assert (what, count) == ("crops", 3)
        assert np.array_equal(crops, np.stack([view.crop(32) for view in (*views, views[0])]))


def test_crops_of_images_on_a_gpu_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fk.frame, "crop", lambda image, squares, size: torch.empty(1, size, size, 3, device=NOWHERE))
    network, image = Whole(), torch.from_numpy(RGB).to(NOWHERE)
    locate(network, [[torch.zeros(1)]] * 2, [View(image, SQUARES[0], False), View(image.clone(), SQUARES[1], False)])
    ((what, count, crops),) = network.asked
    assert (what, count, crops.device, crops.shape) == ("crops", 2, NOWHERE, (2, 32, 32, 3))


def test_the_cpu_is_given_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fk.frame, "track_image", None)
    tracker = fermt.Tracker(steady_model())
    assert not isinstance(tracker.network, module.ImageNetwork)
    tracker.init(RGB, BOX)
    tracker.update(torch.from_numpy(RGB))
