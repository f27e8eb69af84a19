"""Any image, any box, in any order: trackers refuse by the documented errors, or give boxes in the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fermt
from fermt.tracking.target import MARGIN

from .support.errors import refused
from .support.packed import small_model
from .support.tracking import Row, Scripted, follow, follow_many

drawn = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

LAYOUTS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    np.asarray,
    np.asfortranarray,
    lambda image: image[::-1, ::-1],
    lambda image: image.repeat(2, axis=1)[:, ::2],
    lambda image: np.swapaxes(image, 0, 1),
)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """Of any size from 2 to 300, form and layout."""
    height, width = (draw(st.one_of(st.integers(2, 12), st.integers(2, 300))) for _ in range(2))
    channels = draw(st.sampled_from(((), (1,), (3,), (4,))))
    image = np.random.default_rng(draw(st.integers(0, 9))).integers(
        256, size=(height, width, *channels), dtype=np.uint8
    )
    image = draw(st.sampled_from(LAYOUTS))(image)
    if draw(st.booleans()):
        image.flags.writeable = False
    return image


def wrong(image: np.ndarray) -> list[object]:
    return [
        image.astype(np.float32),
        image.astype(np.uint16),
        image.view(bool) if image.flags.c_contiguous else image > 3,
        image[None, None],
        image[:1],
        image[:, :0],
        np.zeros((5, 5, 2), np.uint8),
        image.tolist(),
        "frame.png",
        None,
        torch.from_numpy(image.astype(np.int16)),
        torch.zeros(3, 9, 9, dtype=torch.uint8),
    ]


@st.composite
def inside(draw: st.DrawFn, image: np.ndarray) -> tuple[float, ...]:
    """A box that must be taken: two pixels at least, in the image or over its edge by no more than half."""
    place, size = [], []
    for length in (image.shape[1], image.shape[0]):
        place.append(draw(st.floats(0, length / 2 - 0.5)))
        size.append(draw(st.floats(2, max(2, length / 2))))
    return (*place, *size)


numbers = st.one_of(
    st.floats(-400, 400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**9), 10**9),
    st.sampled_from([0, 1e-9, 1e7, 1e8, 2e8, -1e8, 10**400, math.nan, math.inf, "7", None, 1j, True]),
)
boxes = st.one_of(
    st.tuples(numbers, numbers, numbers, numbers),
    st.tuples(*[st.floats(-50, 320)] * 2, *[st.floats(1e-3, 1e8)] * 2),
    st.lists(numbers, max_size=6),
    st.text(max_size=6),
    st.sampled_from([None, 7, b"abcd", "1234", {1: 2}, np.zeros((4, 2)), np.array([3, 4, 20, 30]), object()]),
)

options = st.fixed_dictionaries(
    {
        "bgr": st.booleans(),
        "lost_below": st.sampled_from([0.0, 0.5, 1.0]),
        "patience": st.integers(1, 3),
        "growth": st.sampled_from([1.0, 1.3, 1e200]),
        "largest_growth": st.floats(1, 4),
        "refresh_every": st.integers(0, 3),
        "refresh_above": st.floats(0, 1),
    }
)


def answers(seed: int) -> Iterator[Row]:
    """Mostly likely ones; now and then the largest numbers that there are."""
    rng = np.random.default_rng(seed)
    while True:
        values = rng.uniform((0.1, 0.1, 0.0, 0.0), (0.9, 0.9, 0.6, 0.6))
        extreme = rng.random(4) < 0.05
        values[extreme] = rng.choice([-1e308, -1.0, 0.0, 2.0, 1e30, 1e308], extreme.sum())
        yield (*values, rng.random())


def assert_in_the_image(track: fermt.Track, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    x, y, w, h = track.box
    assert all(type(value) is float and math.isfinite(value) for value in (*track.box, track.score))
    assert type(track.lost) is bool
    for low, side, length in ((x, w, width), (y, h, height)):
        assert low >= 0
        assert low + side <= length + 1e-9 * length
        assert side >= min(MARGIN, height, width) - 1e-9 * length


def attempt(data: st.DataObject, call: Callable[..., object], image: np.ndarray, *before: object) -> bool:
    """Calls `init` or `reinit` with something right or wrong; whether it was taken."""
    kind = data.draw(st.sampled_from(["right", "right", "any box", "wrong image"]))
    if kind == "right":
        call(*before, image, data.draw(inside(image)))
        return True
    if kind == "any box":
        try:
            call(*before, image, data.draw(boxes))
        except ValueError:
            return False
        return True
    with refused((TypeError, ValueError), "image", "uint8"):
        call(*before, data.draw(st.sampled_from(wrong(image))), (3, 3, 20, 20))
    return False


@settings(drawn, max_examples=120)
@given(data=st.data(), chosen=options, seed=st.integers(0, 2**32 - 1))
def test_one_target(data: st.DataObject, chosen: dict, seed: int) -> None:
    tracker, started = follow(Scripted(answers(seed)), **chosen), False
    for _ in range(data.draw(st.integers(1, 12))):
        image = data.draw(images())
        call = data.draw(st.sampled_from(["init", "reinit", "update", "update", "update", "wrong"]))
        if call == "init" or not started:
            started |= attempt(data, tracker.init, image)
        elif call == "reinit":
            attempt(data, tracker.reinit, image)
        elif call == "update":
            assert_in_the_image(tracker.update(image), image)
        else:
            with refused((TypeError, ValueError), "image", "uint8"):
                tracker.update(data.draw(st.sampled_from(wrong(image))))


@settings(drawn, max_examples=60)
@given(data=st.data(), chosen=options, seed=st.integers(0, 2**32 - 1))
def test_many_targets(data: st.DataObject, chosen: dict, seed: int) -> None:
    tracker = follow_many(Scripted(answers(seed)), **chosen)
    expected: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        image = data.draw(images())
        call = data.draw(st.sampled_from(["add", "add", "reinit", "drop", "update", "update"]))
        if call == "add":
            names: list[int] = []
            if attempt(data, lambda *given, names=names: names.append(tracker.add(*given)), image):
                expected += names
        elif call != "update" and expected:
            name = data.draw(st.sampled_from(expected))
            if call == "drop":
                tracker.drop(name)
                expected.remove(name)
            else:
                attempt(data, tracker.reinit, image, name)
        found = tracker.update(image)
        assert list(found) == list(tracker.names) == expected
        for track in found.values():
            assert_in_the_image(track, image)


@pytest.fixture(scope="module", params=["center", "corner"])
def model(request: pytest.FixtureRequest) -> fermt.FERMT:
    torch.manual_seed(0)
    return small_model(request.param)


@pytest.mark.usefixtures("two_threads")
@settings(drawn, max_examples=15)
@given(data=st.data(), chosen=options)
def test_with_networks_of_random_weights(model: fermt.FERMT, data: st.DataObject, chosen: dict) -> None:
    tracker = fermt.Tracker(model, **chosen)
    image = data.draw(images())
    tracker.init(image, data.draw(inside(image)))
    for _ in range(4):
        image = data.draw(images())
        assert_in_the_image(tracker.update(image), image)
