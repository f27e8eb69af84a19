"""Many targets are followed as each alone: in one call of the network, whoever comes and goes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import fermt
import fermt_kernels as fk
from fermt.tracking.network import ModuleNetwork, PackedNetwork

from .support.errors import refused
from .support.tracking import Scripted, follow, follow_many, noise, rows, steady_model

SIZES = [(120, 160)] * 5 + [(90, 130), (200, 220), (120, 160)]
IMAGES = [noise(*size, seed=i) for i, size in enumerate(SIZES)]
BOXES = [(40.0, 30.0, 25.0, 22.0), (90.5, 60.25, 30.0, 18.0), (-5.0, 80.0, 20.0, 30.0), (70.0, 10.0, 12.0, 12.0)]
Same = Callable[[fermt.Track, fermt.Track], bool]


def equal(got: fermt.Track, expected: fermt.Track) -> bool:
    return got == expected


def near(got: fermt.Track, expected: fermt.Track) -> bool:
    return (*got.box, got.score) == pytest.approx((*expected.box, expected.score), rel=1e-9)


def assert_each_is_followed_alone(
    make: Callable[..., object], same: Same, **options: object
) -> tuple[list[dict], list[set[int]]]:
    """Targets come, go and are found again between frames. Returns, for each frame, what was found, and how many
    templates targets had."""
    many, alone = make(fermt.MultiTracker, **options), {}
    frames: list[dict] = []
    templates: list[set[int]] = []
    locate = many.network.locate
    many.network.locate = lambda encoded, searches: (
        templates.append(set(map(len, encoded))) or locate(encoded, searches)
    )
    for i, image in enumerate(IMAGES):
        for name, box in {0: {"a": BOXES[0], 7: BOXES[1]}, 2: {"c": BOXES[2]}, 4: {"d": BOXES[3]}}.get(i, {}).items():
            many.add(image, box, name)
            alone[name] = make(fermt.Tracker, **options)
            alone[name].init(image, box)
        if i == 3:
            many.drop(7)
            del alone[7]
        if i == 5:
            many.reinit("c", image, BOXES[3])
            alone["c"].reinit(image, BOXES[3])
        found = many.update(image)
        assert list(found) == list(alone) == list(many.names)
        for name, tracker in alone.items():
            assert same(found[name], tracker.update(image)), (i, name)
        frames.append(found)
    return frames, templates


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("loaded")
def test_the_packed_frame_gives_the_same_bits(dtype: torch.dtype) -> None:
    packed = fk.frame.pack(steady_model(), dtype)

    def make(kind: Callable[..., object], **options: object) -> object:
        made = kind(packed, **options)
        assert isinstance(made.network, PackedNetwork)
        return made

    frames, _ = assert_each_is_followed_alone(make, equal)
    assert all(len({track.box for track in found.values()}) == len(found) for found in frames)
    scores = sorted(track.score for found in frames for track in found.values())
    frames, _ = assert_each_is_followed_alone(
        make, equal, lost_below=scores[len(scores) // 3], patience=2, growth=1.5, largest_growth=3.0
    )
    assert {track.lost for found in frames for track in found.values()} == {False, True}


@pytest.mark.parametrize("options", [{}, {"refresh_every": 2, "refresh_above": 0.0}], ids=str)
def test_the_model_itself_gives_the_same(options: dict[str, object]) -> None:
    model = steady_model(torch.float64)

    def make(kind: Callable[..., object], **options: object) -> object:
        made = kind(model, **options)
        assert isinstance(made.network, ModuleNetwork)
        return made

    _, templates = assert_each_is_followed_alone(make, near, **options)
    # With second templates, targets of different ages have one or two in the same frame.
    assert ({1, 2} in templates) is bool(options)


def test_each_template_is_encoded_once_and_a_frame_is_one_call() -> None:
    network = Scripted(rows([0.9] * 20))
    tracker = follow_many(network)
    calls: list[int] = []
    locate = network.locate
    network.locate = lambda encoded, searches: calls.append(len(searches)) or locate(encoded, searches)
    for box in BOXES[:3]:
        tracker.add(IMAGES[0], box)
    for image in IMAGES[:3]:
        tracker.update(image)
    tracker.reinit(1, IMAGES[0], BOXES[3])
    tracker.drop(0)
    tracker.update(IMAGES[0])
    assert calls == [3, 3, 3, 2]
    assert len(network.templates) == 3
    assert network.seen == [[0], [1], [2]] * 3 + [[1], [2]]


def test_targets_do_not_know_of_one_another() -> None:
    """One is lost and grows its search region; the other goes on."""
    script = [row for good, bad in zip(rows([0.9] * 5), rows([0.1] * 5), strict=True) for row in (good, bad)]
    options = {"lost_below": 0.5, "patience": 2, "growth": 2.0}
    network = Scripted(script)
    many = follow_many(network, **options)
    alone = [Scripted(script[i::2]) for i in range(2)]
    trackers = [follow(each, **options) for each in alone]
    for tracker, box in zip(trackers, BOXES, strict=False):
        many.add(IMAGES[0], box)
        tracker.init(IMAGES[0], box)
    for image in IMAGES[:5]:
        assert list(many.update(image).values()) == [tracker.update(image) for tracker in trackers]
    for i in range(2):
        assert all(map(np.array_equal, network.searches[i::2], alone[i].searches))


def test_names() -> None:
    tracker = follow_many(Scripted(rows([0.9] * 9)))
    image = IMAGES[0]
    assert (len(tracker), tracker.names) == (0, ())
    assert [tracker.add(image, box) for box in BOXES[:2]] == [0, 1]
    assert tracker.add(image, BOXES[2], name=2) == 2
    assert tracker.add(image, BOXES[2], name=("car", 4)) == ("car", 4)
    assert tracker.add(image, BOXES[2]) == 3
    assert tracker.names == (0, 1, 2, ("car", 4), 3)
    assert 2 in tracker
    assert 5 not in tracker
    for name in (3, 1):
        tracker.drop(name)
    assert tracker.add(image, BOXES[2]) == 4  # a dropped target's number would be taken for it
    assert tracker.add(image, BOXES[2], name=1) == 1
    assert tuple(tracker.update(image)) == tracker.names == (0, 2, ("car", 4), 4, 1)
    assert len(tracker) == 5


def test_nothing_to_follow() -> None:
    network = Scripted([])
    tracker = follow_many(network)
    assert tracker.update(IMAGES[0]) == {}
    with refused(TypeError, "uint8", "str"):
        tracker.update("frame.png")
    tracker.add(IMAGES[0], BOXES[0])
    tracker.drop(0)
    assert tracker.update(IMAGES[0]) == {}
    assert network.searches == []


def test_errors() -> None:
    tracker = follow_many(Scripted(rows([0.9] * 9)))
    with refused(KeyError, "'a'"):
        tracker.drop("a")
    tracker.add(IMAGES[0], BOXES[0], "a")
    tracker.add(IMAGES[0], BOXES[0])
    with refused(ValueError, "'a'"):
        tracker.add(IMAGES[0], BOXES[1], "a")
    with refused(KeyError, "'b'", "'a', 0"):
        tracker.drop("b")
    with refused(KeyError, "'b'", "'a', 0"):
        tracker.reinit("b", IMAGES[0], BOXES[0])
    with pytest.raises(TypeError, match="unhashable"):
        tracker.add(IMAGES[0], BOXES[0], ["a"])
    with refused(ValueError, (500.0, 5.0, 5.0, 5.0)):
        tracker.add(IMAGES[0], (500, 5, 5, 5), "b")
    with refused(TypeError, "uint8", "NoneType"):
        tracker.add(None, BOXES[0], "b")
    with refused(ValueError, (5.0, 5.0, 0.0, 5.0)):
        tracker.reinit("a", IMAGES[0], (5, 5, 0, 5))
    assert tracker.names == ("a", 0)
    assert set(tracker.update(IMAGES[0])) == {"a", 0}


def test_if_one_is_not_finite_all_stay_as_they_were() -> None:
    good = rows([0.9] * 3)
    tracker, undisturbed = (follow_many(Scripted(script)) for script in ([*good[:2], (math.nan,) * 5, *good], good))
    for each in (tracker, undisturbed):
        for box in BOXES[:3]:
            each.add(IMAGES[0], box)
    with refused(RuntimeError, "nan"):
        tracker.update(IMAGES[0])
    assert tracker.update(IMAGES[0]) == undisturbed.update(IMAGES[0])
