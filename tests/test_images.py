"""Images as trackers take them: every form gives exactly what the RGB image made by hand gives; and huge crops."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import fermt
from fermt.data import crop_target, crops
from fermt.tracking.images import check_image, to_rgb

from .support.errors import refused
from .support.tracking import Scripted, follow, noise, rows, steady_model

RGB, GRAY, ALPHA = noise(90, 120), noise(90, 120, 1, seed=1), noise(90, 120, 1, seed=2)
BOXES = [(40.0, 30.0, 25.5, 22.25), (-10.0, -8.0, 30.0, 30.0), (-2e4, -1e4, 4e4, 3e4)]
# What is given, how, and the RGB image that it stands for.
FORMS: dict[str, tuple[np.ndarray, bool, np.ndarray]] = {
    "gray, 2-D": (GRAY[..., 0], False, np.concatenate([GRAY] * 3, axis=2)),
    "gray": (GRAY, False, np.concatenate([GRAY] * 3, axis=2)),
    "gray beside BGR": (GRAY[..., 0], True, np.concatenate([GRAY] * 3, axis=2)),
    "RGBA": (np.concatenate((RGB, ALPHA), axis=2), False, RGB),
    "BGR": (np.stack([RGB[..., i] for i in (2, 1, 0)], axis=2), True, RGB),
    "BGRA": (np.concatenate((RGB[..., [2, 1, 0]], ALPHA), axis=2), True, RGB),
}


def locked(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image.setflags(write=False)
    return image


# Other ways to lay out the same pixels.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "window": lambda image: np.pad(image, [(3, 5), (7, 2), (0, 0)][: image.ndim])[3:-5, 7:-2],
    "every other": lambda image: image.repeat(2, axis=0).repeat(3, axis=1)[::2, ::3],
    "channels out of more": lambda image: np.stack((image, image), axis=-1)[..., 0],
    "planes": lambda image: np.ascontiguousarray(np.moveaxis(image, -1, 0)).transpose(*range(1, image.ndim), 0),
    "Fortran": np.asfortranarray,
    "upside down": lambda image: np.ascontiguousarray(image[::-1])[::-1],
    "from right to left": lambda image: np.ascontiguousarray(image[:, ::-1])[:, ::-1],
    "last dimension backwards": lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
    "read-only": locked,
    "read-only window": lambda image: locked(np.pad(image, [(1, 1), (1, 1), (0, 0)][: image.ndim]))[1:-1, 1:-1],
}


def shown(image: np.ndarray, box: tuple[float, ...], **options: object) -> list[np.ndarray]:
    """All that the network sees of it."""
    network = Scripted(rows([0.9] * 2))
    tracker = follow(network, **options)
    tracker.init(image, box)
    for _ in range(2):
        tracker.update(image)
    return network.templates + network.searches


@pytest.mark.parametrize("box", BOXES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_its_rgb_image(form: str, box: tuple[float, ...]) -> None:
    image, bgr, rgb = FORMS[form]
    got, expected = shown(image, box, bgr=bgr), shown(rgb, box)
    assert len(got) == len(expected) == 3
    for one, other in zip(got, expected, strict=True):
        assert one.flags.c_contiguous
        assert one.shape[2:] == (3,)
        assert np.array_equal(one, other)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tracks_as_its_rgb_image(form: str) -> None:
    image, bgr, rgb = FORMS[form]
    model = steady_model()
    tracks = []
    for tracker, frame in ((fermt.Tracker(model, bgr=bgr), image), (fermt.Tracker(model), rgb)):
        tracker.init(frame, BOXES[0])
        tracks.append([tracker.update(np.roll(frame, i, axis=1)) for i in range(3)])
    assert tracks[0] == tracks[1]


def test_bgr_is_not_rgb() -> None:
    assert not np.array_equal(shown(RGB, BOXES[0])[0], shown(RGB, BOXES[0], bgr=True)[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_any_layout(form: str, layout: str) -> None:
    image, bgr, _ = FORMS[form]
    laid = LAYOUTS[layout](image)
    before = laid.copy()
    assert np.array_equal(laid, image)
    for box in BOXES:
        assert all(map(np.array_equal, shown(laid, box, bgr=bgr), shown(image, box, bgr=bgr)))
    assert np.array_equal(laid, before)


def test_one_pixel_for_all() -> None:
    flat = np.broadcast_to(np.array([10, 20, 30], np.uint8), (90, 120, 3))
    assert all(map(np.array_equal, shown(flat, BOXES[0]), shown(flat.copy(), BOXES[0])))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bgr", [False, True])
def test_a_crops_channels(channels: int, bgr: bool) -> None:
    crop = noise(4, 4, channels)
    order = {1: [0, 0, 0], 3: [0, 1, 2], 4: [0, 1, 2]}[channels]
    assert np.array_equal(to_rgb(crop, bgr), crop[..., order[::-1] if bgr else order])


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 1), (2, 300, 3), (300, 2, 4)])
def test_the_smallest_images(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8)
    assert check_image(image) == shape[:2]
    assert shown(image, (0, 0, 1, 1))


BAD = [
    (RGB[:1], (1, 120, 3)),
    (RGB[:, :1], (90, 1, 3)),
    (np.zeros((9, 9, 5), np.uint8), (9, 9, 5)),
    (np.zeros((9, 9, 0), np.uint8), (9, 9, 0)),
    (np.uint8(3) + np.zeros((), np.uint8), "uint8"),
    (RGB > 3, "bool"),
    (RGB.view(np.int8), "int8"),
    (RGB.astype(">u2"), ">u2"),
    (RGB.tolist(), "list"),
    (None, "NoneType"),
]


@pytest.mark.parametrize(("image", "got"), BAD)
def test_what_is_no_image(image: object, got: object) -> None:
    with refused((TypeError, ValueError), "image", "uint8", "(H, W, 3)", got):
        check_image(image)


def channels_of(channels: int) -> np.ndarray:
    image = noise(70, 90, channels)
    return image[..., 0] if channels == 1 else image


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("box", [*BOXES[:2], (89.0, 40.0, 3.0, 3.0), (-300.0, -200.0, 600.0, 700.0)], ids=str)
def test_without_its_margins_a_crop_is_the_same(
    monkeypatch: pytest.MonkeyPatch, channels: int, box: tuple[float, ...]
) -> None:
    image = channels_of(channels)
    padded = [crop_target(image, box, factor, 32) for factor in (2.0, 4.0)]
    monkeypatch.setattr(crops, "LARGEST_PADDED", 0)
    for factor, expected in zip((2.0, 4.0), padded, strict=True):
        got = crop_target(image, box, factor, 32)
        assert np.array_equal(got.image.reshape(expected.image.shape), expected.image)
        assert got[1:] == expected[1:]


def test_beyond_the_largest_padded_side_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    image, box = noise(700, 900, 1)[..., 0], (-100.0, -200.0, 1100.0, 1200.0)
    got = crop_target(image, box, 4.0, 256)
    assert got.side > crops.LARGEST_PADDED
    monkeypatch.setattr(crops, "LARGEST_PADDED", 10**5)
    assert np.array_equal(got.image[..., 0], crop_target(image, box, 4.0, 256).image)


@pytest.mark.parametrize("side", [1e7, 1e8])
def test_a_huge_box_takes_little_memory(side: float) -> None:
    """Its square with margins would take terabytes; the first update brings the box into the image."""
    network = Scripted(rows([0.9] * 3))
    tracker = follow(network, growth=4.0, largest_growth=4.0)
    tracemalloc.start()
    try:
        tracker.init(RGB, (-0.5 * side, -0.5 * side, side, side))
        first = tracker.update(RGB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    assert first.box == (0, 0, 120, 90)
    assert not network.searches[0].any()  # the image is far less than a pixel of the crop
    tracker.update(RGB)
    assert np.array_equal(network.searches[1], crop_target(RGB, first.box, 4.0, 32).image)
