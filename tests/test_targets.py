"""One target from frame to frame: options, patience, freezing, growth, being found again."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import fermt
from fermt.boxes import clip_to_image
from fermt.data import crop_target
from fermt.tracking import Options, Track
from fermt.tracking.target import MARGIN

from .support.errors import refused
from .support.packed import small_model
from .support.tracking import STEPS, Row, Scripted, follow, noise, rows, steady_model

IMAGE = noise(200, 300)
BOX = (100.0, 80.0, 40.0, 30.0)
OTHER = (150.0, 100.0, 25.5, 44.25)


def search(box: tuple[float, ...], growth: float = 1.0, image: np.ndarray = IMAGE) -> np.ndarray:
    return crop_target(image, box, Scripted.search_factor * growth, Scripted.search_size).image


def plain_protocol(script: list[Row], box: tuple[float, ...], height: int, width: int) -> list[np.ndarray]:
    """Boxes as the paper's benchmarks define them, by corners."""
    found, low, high = [], np.array(box[:2]), np.array(box[:2]) + box[2:]
    ends = np.array([width, height], float)
    for *values, _ in script:
        side = math.ceil(math.sqrt((high - low).prod()) * Scripted.search_factor)
        middle = 0.5 * (low + high) + (np.array(values[:2]) - 0.5) * side
        half = 0.5 * np.array(values[2:]) * side
        low, high = (middle - half).clip(0, ends - MARGIN), (middle + half).clip(MARGIN, ends)
        high = np.maximum(high, low + MARGIN)
        found.append(np.concatenate((low, high - low)))
    return found


def test_the_defaults_are_the_plain_protocol() -> None:
    script = [*rows([0.9, 0.0, 0.001, 0.5, 0.0] * 4), (0.9, 0.1, 0.01, 0.9, 0.0), (0.0, 1.0, 0.3, 0.3, 0.2)] * 3
    network = Scripted(script)
    tracker = follow(network)
    tracker.init(IMAGE, BOX)
    expected = [np.array(BOX), *plain_protocol(script, BOX, 200, 300)]
    for i, (before, after) in enumerate(pairwise(expected)):
        track = tracker.update(IMAGE)
        np.testing.assert_allclose(track.box, after, rtol=0, atol=1e-9)
        assert track.score == script[i][4]
        assert not track.lost
        assert np.array_equal(network.searches[i], search(tuple(before)))
    assert [len(templates) for templates in network.seen] == [1] * len(script)
    assert np.array_equal(network.templates[0], crop_target(IMAGE, BOX, 2.0, Scripted.template_size).image)


def test_bad_frames_within_patience_move_the_box_and_then_it_stays_where_it_was_last_good() -> None:
    script = rows([0.9, 0.8, 0.4, 0.3, 0.2, 0.1, 0.7, 0.3])
    network, plain = Scripted(script), follow(Scripted(script))
    tracker = follow(network, lost_below=0.5, patience=3)
    for each in (tracker, plain):
        each.init(IMAGE, BOX)
    tracks = [tracker.update(IMAGE) for _ in range(8)]
    moved = [plain.update(IMAGE).box for _ in range(4)]
    assert [track.lost for track in tracks] == [False] * 4 + [True] * 2 + [False] * 2
    assert [track.score for track in tracks] == [row[4] for row in script]
    assert [track.box for track in tracks[:4]] == moved  # two good frames, two bad ones
    assert tracks[4].box == tracks[5].box == moved[1]
    # Lost, it is looked for where it was last good; found, it goes on from there.
    assert np.array_equal(network.searches[5], search(moved[1]))
    assert np.array_equal(network.searches[6], search(moved[1]))
    again = follow(Scripted(script[6:]))
    again.init(IMAGE, moved[1])
    assert [track.box for track in tracks[6:]] == [again.update(IMAGE).box for _ in range(2)]


@pytest.mark.parametrize("box", [(-5.0, -6.0, 20.0, 24.0), (290.0, 195.0, 2.0, 3.0), (-1e7, -1e7, 2e7, 2e7)])
def test_lost_from_the_first_frame_on_it_stays_in_the_image(box: tuple[float, ...]) -> None:
    tracker = follow(Scripted(rows([0.1] * 3)), lost_below=0.5)
    tracker.init(IMAGE, box)
    assert [tracker.update(IMAGE) for _ in range(3)] == [(clip_to_image(box, 200, 300, MARGIN), 0.1, True)] * 3


@pytest.mark.parametrize(
    ("growth", "largest", "expected"),
    [
        (1.0, 4.0, [1, 1, 1, 1, 1, 1, 1]),
        (1.25, 2.0, [1, 1, 1.25, 1.5625, 1.953125, 2, 2]),
        (3.0, 2.5, [1, 1, 2.5, 2.5, 2.5, 2.5, 2.5]),
    ],
)
def test_the_search_region_grows_by_its_rule_until_the_target_is_found(
    growth: float, largest: float, expected: list[float]
) -> None:
    """After a good frame, two bad ones make it lost; the first frame lost is not yet followed by a larger region."""
    network = Scripted(rows([0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]))
    tracker = follow(network, lost_below=0.5, patience=2, growth=growth, largest_growth=largest)
    tracker.init(IMAGE, BOX)
    tracks = [tracker.update(IMAGE) for _ in range(12)]
    frozen = tracks[0].box
    for factor, seen in zip(expected[1:], network.searches[3:], strict=False):
        assert np.array_equal(seen, search(frozen, factor))
    # The box is read off the region as large as it was.
    side = math.ceil(math.sqrt(frozen[2] * frozen[3]) * Scripted.search_factor * expected[-1])
    assert tracks[8].box[2] == pytest.approx(STEPS[0][2] * side)
    assert [track.lost for track in tracks] == [False] * 2 + [True] * 6 + [False] * 2 + [True] * 2
    assert np.array_equal(network.searches[9], search(tracks[8].box))
    assert np.array_equal(network.searches[11], search(tracks[8].box))


def test_a_target_may_be_lost_for_ever() -> None:
    network = Scripted(rows([0.1] * 1200))
    tracker = follow(network, lost_below=0.5, growth=1e300, largest_growth=4.0)
    tracker.init(IMAGE, BOX)
    assert {tracker.update(IMAGE) for _ in range(1200)} == {(BOX, 0.1, True)}
    assert np.array_equal(network.searches[-1], search(BOX, 4.0))


@pytest.mark.parametrize("size", [(60, 50), (2, 2), (5, 300), (400, 500)])
def test_images_may_change_size(size: tuple[int, int]) -> None:
    """A box that would lie outside is moved in; a lost one too."""
    other = noise(*size, seed=1)
    script = rows([0.9, 0.9, 0.1, 0.1])
    network = Scripted(script)
    tracker = follow(network, lost_below=0.5)
    tracker.init(IMAGE, BOX)
    before = tracker.update(IMAGE).box
    moved = clip_to_image(before, *size, MARGIN)
    assert (moved == before) is (size == (400, 500))
    tracks = [tracker.update(other) for _ in range(2)]
    assert np.array_equal(network.searches[1], search(moved, image=other))
    follower = follow(Scripted(script[1:]))
    follower.init(other, moved)
    assert tracks[0].box == follower.update(other).box
    assert tracks[1] == (tracks[0].box, 0.1, True)
    assert tracker.update(IMAGE).box == clip_to_image(tracks[1].box, 200, 300, MARGIN)


def test_a_bad_frame_of_another_size_leaves_it_where_it_was_last_good() -> None:
    tracker = follow(Scripted(rows([0.9, 0.1, 0.1, 0.1])), lost_below=0.5, patience=3)
    tracker.init(IMAGE, BOX)
    good, moved = (tracker.update(IMAGE).box for _ in range(2))
    expected = clip_to_image(good, 90, 120, MARGIN)
    assert clip_to_image(moved, 90, 120, MARGIN) != expected != good
    tracks = [tracker.update(noise(90, 120)) for _ in range(2)]
    assert [track.lost for track in tracks] == [False, True]
    assert tracks[1].box == expected


def test_boxes_are_floats_in_the_smallest_images() -> None:
    for size in ((2, 2), (5, 8), (9, 40)):
        tracker = follow(Scripted(rows([0.9, 0.1])), lost_below=0.5)
        tracker.init(noise(*size), (0, 0, 1, 1))
        for track in (tracker.update(noise(*size)), tracker.update(noise(*size))):
            assert all(type(value) is float for value in track.box)


def test_reinit_keeps_the_template_and_forgets_that_the_target_was_lost() -> None:
    script = rows([0.1, 0.1, 0.1, 0.1, 0.1])
    network, other = Scripted(script), noise(150, 260, seed=1)
    tracker = follow(network, lost_below=0.5, patience=2, growth=2.0)
    tracker.init(IMAGE, BOX)
    assert [tracker.update(IMAGE).lost for _ in range(3)] == [False, True, True]
    tracker.reinit(other, OTHER)
    fresh = follow(Scripted(script[3:]), lost_below=0.5, patience=2)
    fresh.init(other, OTHER)
    assert [tracker.update(other) for _ in range(2)] == [fresh.update(other) for _ in range(2)]
    assert np.array_equal(network.searches[3], search(OTHER, image=other))
    assert len(network.templates) == 1
    assert network.seen == [[0]] * 5


def test_reinit_and_init_with_a_real_network() -> None:
    model = steady_model(torch.float64)
    tracker, same, new = (fermt.Tracker(model) for _ in range(3))
    later = noise(200, 300, seed=1)
    tracker.init(IMAGE, BOX)
    same.init(IMAGE, OTHER)
    same.reinit(later, BOX)
    tracker.reinit(later, OTHER)
    new.init(later, OTHER)
    fresh = new.update(later)
    assert tracker.update(later) != fresh  # another template
    tracker.init(later, OTHER)
    tracker.reinit(later, BOX)
    tracker.reinit(later, OTHER)
    assert tracker.update(later) == fresh


BAD_BOXES: list[object] = [
    (-100.0, 40.0, 100.001, 4.0),  # meets the image, but the square around its center does not
    (299.5, 10.0, 0.1, 0.1),
    (10.0, 10.0, 1e-200, 1e-200),
    (10.0, 10.0, 5.0),
    (10.0, 10.0, 5.0, math.inf),
    (10**400, 10, 5, 5),
    "1234",
    b"abcd",
    ("10", "10", "5", "5"),
    None,
]


@pytest.mark.parametrize("box", BAD_BOXES, ids=lambda box: str(box)[:30])
def test_init_and_reinit_refuse_the_same_boxes_and_leave_the_target(box: object) -> None:
    script = rows([0.9, 0.9])
    tracker, undisturbed = follow(Scripted(script)), follow(Scripted(script))
    for each in (tracker, undisturbed):
        each.init(IMAGE, BOX)
    for call in (tracker.init, tracker.reinit):
        with refused(ValueError, "(x, y, w, h)"):
            call(IMAGE, box)
        with refused(TypeError, "uint8", "float64"):
            call(IMAGE.astype(float), OTHER)
        assert tracker.update(IMAGE) == undisturbed.update(IMAGE)


def test_reinit_before_init() -> None:
    with refused(RuntimeError, "Tracker.reinit", "Tracker.init"):
        follow(Scripted([])).reinit(IMAGE, BOX)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(5))
def test_what_is_not_finite_is_an_error_and_leaves_the_target(bad: float, place: int) -> None:
    good = rows([0.9])[0]
    tracker, undisturbed = follow(Scripted([(*good[:place], bad, *good[place + 1 :]), good])), follow(Scripted([good]))
    for each in (tracker, undisturbed):
        each.init(IMAGE, BOX)
    with refused(RuntimeError, bad):
        tracker.update(IMAGE)
    assert tracker.update(IMAGE) == undisturbed.update(IMAGE)


@pytest.mark.parametrize("head", ["center", "corner"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_weights_that_are_not_finite(head: str, dtype: torch.dtype) -> None:
    model = small_model(head).to(dtype)
    with torch.no_grad():
        model.box_head.get_submodule("conv5_ctr" if head == "center" else "conv5_tl").bias.fill_(math.nan)
    tracker = fermt.Tracker(model)
    tracker.init(IMAGE, BOX)
    with refused(RuntimeError, "nan"):
        tracker.update(IMAGE)


OPTIONS: list[tuple[dict[str, object], type[Exception]]] = [
    ({"bgr": "no"}, TypeError),
    ({"brighten": 1}, TypeError),
    ({"lost_below": -0.1}, ValueError),
    ({"lost_below": 1.5}, ValueError),
    ({"lost_below": math.nan}, ValueError),
    ({"lost_below": "0.5"}, TypeError),
    ({"patience": 0}, ValueError),
    ({"patience": 1.5}, TypeError),
    ({"growth": 0.9}, ValueError),
    ({"growth": math.inf}, ValueError),
    ({"largest_growth": 0.5}, ValueError),
    ({"largest_growth": 4.5}, ValueError),
    ({"refresh_every": -1}, ValueError),
    ({"refresh_every": None}, TypeError),
    ({"refresh_above": 1.01}, ValueError),
    ({"refresh_above": math.nan}, ValueError),
    ({"refresh_every": True}, TypeError),
    ({"lost_below": True}, TypeError),
]


@pytest.mark.parametrize(("options", "error"), OPTIONS)
def test_options_out_of_range(options: dict[str, object], error: type[Exception]) -> None:
    model, ((name, value),) = small_model("center"), options.items()
    for make in (Options, lambda **given: fermt.Tracker(model, **given), lambda **given: follow(Scripted([]), **given)):
        with refused(error, name, repr(value)):
            make(**options)


def test_unknown_options() -> None:
    with refused(TypeError, "'speed'"):
        fermt.Tracker(small_model("center"), speed=2)


def test_options_at_the_ends_of_their_ranges() -> None:
    Options(lost_below=0, patience=1, growth=1, largest_growth=1, refresh_every=0, refresh_above=0)
    Options(bgr=True, lost_below=np.float32(1), patience=np.int64(10**9), growth=1e308, largest_growth=4)
    assert {field for options, _ in OPTIONS for field in options} == set(vars(Options()))


def test_options_of_numpy_give_plain_results() -> None:
    """A result goes into JSON, which takes no number of NumPy's."""
    options = {"patience": np.int64(1), "lost_below": np.float32(0.5), "growth": np.float64(1.5)}
    tracker = follow(Scripted(rows([0.9, 0.1, 0.1])), **options)
    tracker.init(IMAGE, BOX)
    found = [tracker.update(IMAGE) for _ in range(3)]
    assert [track.lost for track in map(Track._make, json.loads(json.dumps(found)))] == [False, True, True]


NO_MODELS = [None, "weights.safetensors", 5, torch.nn.Linear(2, 2), fermt.FERMT]


@pytest.mark.parametrize("model", NO_MODELS, ids=str)
def test_what_is_no_model(model: object) -> None:
    for kind in (fermt.Tracker, fermt.MultiTracker):
        with refused(TypeError, repr(model), "fermt.load"):
            kind(model)  # type: ignore[arg-type]
    with refused(ValueError, "meta"):
        fermt.Tracker(small_model("center").to("meta"))
    with refused(TypeError, "dtype", "'bfloat16'"):
        fermt.Tracker(small_model("center"), dtype="bfloat16")  # type: ignore[arg-type]


def test_a_model_that_is_trained_stays_in_training() -> None:
    """With frozen norms, which are in evaluation mode all the time; the tracker runs the model itself, in float64."""
    model = small_model("center").double()
    expected = fermt.Tracker(model)
    expected.init(IMAGE, BOX)
    model.train()
    frozen = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in frozen:
        module.eval()
    modes = [module.training for module in model.modules()]
    tracker = fermt.Tracker(model)
    tracker.init(IMAGE, BOX)
    assert tracker.update(IMAGE) == expected.update(IMAGE)
    assert [module.training for module in model.modules()] == modes
    assert frozen
