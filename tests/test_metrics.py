"""Metrics: single numbers by hand, and what holds for any boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from fermt.datasets import TestSequence
from fermt.evaluation import metrics, rules
from fermt.evaluation.protocols import DEFAULT_PROTOCOLS, PROTOCOLS
from fermt.evaluation.scores import Report, evaluate

from .support.errors import refused
from .support.scoring import Listed, put, sequence, values

# Whole numbers, so that sums and differences are exact, and boxes are what they are after rounding.
SIZES = st.integers(1, 200)
CORNERS = st.integers(-100, 300)
BOX = st.tuples(CORNERS, CORNERS, SIZES, SIZES)
PAIRS = [*DEFAULT_PROTOCOLS.items(), ("trackingnet", "pytracking"), ("lasot", "lasot-official")]


def boxes_of(count: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(BOX, min_size=count, max_size=count).map(lambda rows: np.array(rows, np.float64))


TWO = st.integers(1, 8).flatmap(lambda count: st.tuples(boxes_of(count), boxes_of(count)))
RESULTS = st.lists(TWO, min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("box", "truth", "overlap", "pixels", "sizes"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1, 0, 0),
        ((5, 0, 10, 10), (0, 0, 10, 10), 50 / 150, 5, 0.5),
        ((10, 0, 10, 10), (0, 0, 10, 10), 0, 10, 1),  # they touch
        ((3, 4, 10, 20), (0, 0, 10, 20), 7 * 16 / (400 - 7 * 16), 5, np.hypot(0.3, 0.2)),
        ((0, 0, 20, 10), (0, 0, 10, 10), 0.5, 5, 0.5),
        ((2.5, 2.5, 5, 5), (0, 0, 10, 10), 0.25, 0, 0),
        ((-5, -5, 10, 10), (-10, -10, 10, 10), 25 / 175, np.hypot(5, 5), np.hypot(0.5, 0.5)),
        ((0, 0, 0, 10), (0, 0, 10, 10), 0, 5, 0.5),
        ((np.nan, 0, 10, 10), (0, 0, 10, 10), np.nan, np.nan, np.nan),
    ],
)
def test_of_one_frame(box: tuple[float, ...], truth: tuple[float, ...], overlap: float, pixels: float, sizes: float):
    found = [
        measure(np.array([box], np.float64), np.array([truth], np.float64))[0]
        for measure in (metrics.overlap, metrics.got10k_overlap, metrics.center_error)
    ]
    np.testing.assert_allclose(found, [overlap, overlap, pixels], rtol=0, atol=1e-12)
    for measure in (metrics.normalized_error, metrics.normalized_difference):
        found = measure(np.array([box], np.float64), np.array([truth], np.float64))
        np.testing.assert_allclose(found, [sizes], rtol=0, atol=1e-12)


def test_without_area() -> None:
    zeros = np.zeros((1, 4))
    assert np.isnan(metrics.overlap(zeros, zeros))
    assert metrics.got10k_overlap(zeros, zeros) == 0
    assert np.isnan(metrics.normalized_error(zeros, zeros))
    assert np.isinf(metrics.normalized_error(np.ones((1, 4)), zeros))


def test_tallies() -> None:
    found, thresholds = np.array([0, 0.5, 0.5, 1, np.nan]), np.array([0, 0.5, 1])
    assert metrics.count_above(found, thresholds).tolist() == [3, 1, 0]
    assert metrics.count_at_least(found, thresholds).tolist() == [4, 3, 1]
    assert metrics.count_at_most(found, thresholds).tolist() == [1, 3, 4]
    assert metrics.total(found[:4], thresholds).tolist() == [2]


def test_readings() -> None:
    thresholds = np.array([0, 1, 3])
    assert metrics.mean(thresholds).tolist() == [1 / 3] * 3
    assert metrics.trapezoid(thresholds) == pytest.approx([1 / 6, 3 / 6, 2 / 6])
    assert metrics.point_at(3, thresholds).tolist() == [0, 0, 1]
    with refused(ValueError, 2, [0, 1, 3]):
        metrics.point_at(2, thresholds)


def test_sums_over_sequences() -> None:
    """Two sequences, of one frame and of three, under weights of 1 and 1, 2 and 0, 1 and 2."""
    sums, counts = np.array([[1.0, 0.0], [1.5, 0.0]]), np.array([1.0, 3.0])
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [1.0, 2.0]])
    assert rules.POOLED.apply(sums, counts, weights)[:, 0] == pytest.approx([2.5 / 4, 1, 4 / 7])
    assert rules.AVERAGED.apply(sums, counts, weights)[:, 0] == pytest.approx([0.75, 1, 2 / 3])
    some = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert rules.AVERAGED_BUT_ZERO.apply(some, counts, weights).tolist() == [[1, 0]] * 3
    assert rules.AVERAGED_BUT_ZERO.apply(some * 0, counts, weights).tolist() == [[0, 0]] * 3


@given(TWO)
def test_what_moves_and_scales_along(pair: tuple[np.ndarray, np.ndarray]) -> None:
    boxes, truth = pair
    moved, scaled = np.array([17, -29, 0, 0.0]), 4.0
    for measure in (metrics.overlap, metrics.got10k_overlap, metrics.normalized_error, metrics.normalized_difference):
        plain = measure(boxes, truth)
        np.testing.assert_allclose(measure(boxes + moved, truth + moved), plain, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(measure(boxes * scaled, truth * scaled), plain, rtol=1e-9, atol=1e-9)
    pixels = metrics.center_error(boxes, truth)
    np.testing.assert_allclose(metrics.center_error(boxes + moved, truth + moved), pixels, rtol=1e-12)
    np.testing.assert_allclose(metrics.center_error(boxes * scaled, truth * scaled), pixels * scaled, rtol=1e-12)


@given(TWO)
def test_what_is_the_same_both_ways(pair: tuple[np.ndarray, np.ndarray]) -> None:
    boxes, truth = pair
    for measure in (metrics.overlap, metrics.got10k_overlap, metrics.center_error):
        np.testing.assert_array_equal(measure(boxes, truth), measure(truth, boxes))
    found = metrics.overlap(boxes, truth)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(metrics.got10k_overlap(boxes, truth), found, rtol=1e-12)
    np.testing.assert_allclose(
        metrics.normalized_difference(boxes, truth), metrics.normalized_error(boxes, truth), atol=1e-9
    )


@given(nps.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)))
def test_curves_fall_or_rise(found: np.ndarray) -> None:
    thresholds = np.linspace(0, 1, 21)
    for tally, sign in ((metrics.count_above, -1), (metrics.count_at_least, -1), (metrics.count_at_most, 1)):
        assert (np.diff(tally(found, thresholds)) * sign >= 0).all()
    assert (metrics.count_above(found, thresholds) + metrics.count_at_most(found, thresholds) == len(found)).all()


def scored(folder: Path, protocol: str, name: str, sequences: list[TestSequence], boxes: list[np.ndarray]) -> Report:
    for each, of in zip(sequences, boxes, strict=True):
        put(folder, each.name, of)
    return evaluate(folder, Listed(name, sequences), protocol=protocol, bootstrap=20)


@pytest.mark.parametrize(("data_set", "protocol"), PAIRS)
@settings(max_examples=15)
@given(truths=st.lists(st.integers(2, 8).flatmap(boxes_of), min_size=1, max_size=3))
def test_a_perfect_tracker(
    tmp_path_factory: pytest.TempPathFactory, protocol: str, data_set: str, truths: list[np.ndarray]
) -> None:
    """It has every hit that can be had. No overlap is greater than 1, so the last of 21 points stays 0."""
    unit = PROTOCOLS[protocol].unit
    most = {"AUC": 1 if protocol == "trackingnet-devkit" else 20 / 21}
    truths = [truth + np.array([101, 101, 0, 0]) for truth in truths]  # LaSOT's toolkit wants x and y above 0
    sequences = [sequence(f"s{i}", truth) for i, truth in enumerate(truths)]
    report = scored(tmp_path_factory.mktemp("perfect"), protocol, data_set, sequences, truths)
    found = values(report)
    for name in found:
        assert found[name] == pytest.approx(unit * most.get(name, 1), rel=1e-12)
    assert report.scores[next(iter(found))].low in (None, pytest.approx(found[next(iter(found))]))


@pytest.mark.parametrize(("data_set", "protocol"), PAIRS)
@settings(max_examples=15)
@given(pairs=RESULTS, data=st.data())
def test_any_tracker(
    tmp_path_factory: pytest.TempPathFactory,
    protocol: str,
    data_set: str,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    data: st.DataObject,
) -> None:
    """Scores are from 0 to all, inside of their intervals' reach, and know no order of sequences."""
    folder = tmp_path_factory.mktemp("any")
    sequences = [sequence(f"s{i}", truth, attributes=frozenset({f"a{i % 2}"})) for i, (_, truth) in enumerate(pairs)]
    boxes = [boxes for boxes, _ in pairs]
    report = scored(folder, protocol, data_set, sequences, boxes)
    for name, (value, low, high) in report.scores.items():
        counted = [row[name] for row in report.per_sequence.values() if np.isfinite(row[name])]
        if not counted:  # of the first frames alone, which the protocol leaves out
            assert np.isnan(value)
            continue
        assert 0 <= min(counted) <= max(counted) <= report.unit * (1 + 1e-12)
        assert 0 <= value <= report.unit * (1 + 1e-12)
        assert low is None or high is None or 0 <= low <= high <= report.unit * (1 + 1e-12)
    order = data.draw(st.permutations(range(len(pairs))))
    again = scored(folder, protocol, data_set, [sequences[i] for i in order], [boxes[i] for i in order])
    for left, right in ((report.scores, again.scores), (report.attributes, again.attributes)):
        np.testing.assert_equal(left, right)
    for key, (_, points) in report.curves.items():
        np.testing.assert_array_equal(points, again.curves[key].values)
