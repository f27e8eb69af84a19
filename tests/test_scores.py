"""Scores of whole folders: what is missing or bad, repetitions, intervals, attributes, speed, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fermt.datasets import TestSequence
from fermt.evaluation.report import attribute_table, notes, table
from fermt.evaluation.results import write_result
from fermt.evaluation.scores import Report, evaluate

from .support.errors import lacking, refused
from .support.scoring import BOXES, TRUTH, Listed, put, score, sequence, values

AO = 25 / 12 / 4  # of the five frames
AUC = 62 / 1.05


def shown(what: Any) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def rows(what: Any) -> list[list[str]]:
    """The cells of a table's body."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown(what).splitlines() if "│" in line]


def three(name: str = "nfs") -> Listed:
    return Listed(name, [sequence("b"), sequence("a"), sequence("c")])


def test_missing_and_failed_are_named(tmp_path: Path) -> None:
    put(tmp_path, "b", BOXES)
    (tmp_path / "c.txt").write_text("1,2,3,4\n1,2,3\n")
    report = evaluate(tmp_path, three(), tracker="mine")
    assert (report.sequences, report.missing) == (["b"], ["a"])
    assert report.failed.keys() == {"c"}
    assert lacking(report.failed["c"], tmp_path / "c.txt", "line 2", "'1,2,3'") == []
    assert report.scores["AUC"].value == pytest.approx(AUC)
    assert report.frames == 5
    lines = notes(report)
    assert lacking(lines[0], "WARNING", 1, "a") == []
    assert lacking(lines[1], "WARNING", "c", report.failed["c"]) == []
    assert "1 of 3" in shown(table(report))


def test_a_truth_that_cannot_be_read(tmp_path: Path) -> None:
    class Damaged(Listed):
        def __getitem__(self, i: int) -> TestSequence:
            if i == 0:
                raise ValueError("b/groundtruth.txt, line 3: expected four numbers")
            return super().__getitem__(i)

    report = score(tmp_path, Damaged("nfs", three().sequences))
    assert report.sequences == ["a", "c"]
    assert report.failed == {"b": "b/groundtruth.txt, line 3: expected four numbers"}


def test_missing_is_zeros_for_trackingnet(tmp_path: Path) -> None:
    """The first frame is right; the others have overlap 0, a hit at 0 (1/40), and are sqrt(20^2 + 20^2) = 28.3 pixels
    away, a hit at 30 ... 50 (8/20 + 1/40), which is more than half a size."""
    report = score(tmp_path, Listed("trackingnet", [sequence("a"), sequence("b")]), {"a": BOXES})
    assert (report.sequences, report.missing) == (["a", "b"], ["b"])
    assert report.per_sequence["b"] == pytest.approx(
        {"AUC": (1 + 4 * 0.025) * 20, "P": (1 + 4 * 0.425) * 20, "Pn": 20, "Coverage": 20}
    )
    assert values(report) == pytest.approx({"AUC": 42.25, "P": 71.25, "Pn": 38, "Coverage": 60})
    assert lacking(notes(report)[0], "WARNING", 1, "zeros", "b") == []
    assert "2 of 2" in shown(table(report))


def test_no_result_at_all(tmp_path: Path) -> None:
    with refused(FileNotFoundError, tmp_path / "none"):
        evaluate(tmp_path / "none", three())
    for name in ("nfs", "trackingnet"):
        with refused(FileNotFoundError, "'b'", tmp_path):
            evaluate(tmp_path, three(name))
    (tmp_path / "a.txt").touch()
    with refused(ValueError, 1, tmp_path, "a.txt'"):
        evaluate(tmp_path, three())


@pytest.mark.parametrize(("name", "server"), [("got10k", "got-10k"), ("trackingnet", "eval.ai")])
def test_a_truth_that_is_withheld(tmp_path: Path, name: str, server: str) -> None:
    withheld = TestSequence("a", [Path("0.jpg"), Path("1.jpg")], TRUTH[:1])
    put(tmp_path, "a", BOXES[:2])
    with refused(ValueError, "'a'", server, "fermt pack"):
        evaluate(tmp_path, Listed(name, [withheld]))


def test_arguments(tmp_path: Path) -> None:
    with refused(ValueError, "bootstrap", -1):
        score(tmp_path, three(), bootstrap=-1)
    with refused(ValueError, "protocol", "auto", "'mine'"):
        score(tmp_path, three(), protocol="mine")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("got10k", {"AO": (4 * AO + 4) / 8, "SR0.5": 6 / 8, "SR0.75": 5 / 8}),
        ("nfs", {"AUC": (AUC + 2000 / 21) / 2, "OP50": 80, "OP75": 70, "P": 100, "Pn": 80}),
    ],
)
def test_repetitions(tmp_path: Path, name: str, expected: dict[str, float]) -> None:
    for run, boxes in enumerate((BOXES, TRUTH), 1):
        put(tmp_path / "one", f"one_{run:03d}", boxes)
    report = evaluate(tmp_path, Listed(name, [sequence()]))
    assert values(report) == pytest.approx(expected)
    assert (report.repetitions, report.frames) == (2, 5 - (name == "got10k"))
    assert any("up to 2 repetitions" in line for line in notes(report))


def test_intervals_of_two_sequences(tmp_path: Path) -> None:
    """Half of the resamples have both, a quarter one of them twice: the ends are the sequences' own scores."""
    report = score(tmp_path, Listed("nfs", [sequence("a"), sequence("b")]), {"a": BOXES, "b": TRUTH}, bootstrap=500)
    assert report.resamples == 500
    auc = report.scores["AUC"]
    assert auc == pytest.approx(((AUC + 2000 / 21) / 2, AUC, 2000 / 21))
    assert report.scores["P"] == (100, 100, 100)


def test_intervals_pool_frames_again(tmp_path: Path) -> None:
    """Against resamples whose frames are put together one by one."""
    rng = np.random.default_rng(3)
    sequences = [sequence(f"s{i}", np.tile(TRUTH[:1], (int(n), 1))) for i, n in enumerate(rng.integers(2, 60, 12))]
    boxes = {s.name: s.boxes + rng.uniform(0, 15, (1, 4)) + rng.uniform(0, 5, s.boxes.shape) for s in sequences}
    report = score(tmp_path, Listed("got10k", sequences), boxes, bootstrap=4000)
    frames = [overlaps(boxes[s.name][1:], s.boxes[1:]) for s in sequences]
    drawn = [np.concatenate([frames[i] for i in rng.integers(12, size=12)]).mean() for _ in range(4000)]
    assert report.scores["AO"].value == pytest.approx(np.concatenate(frames).mean(), abs=1e-12)
    assert report.scores["AO"][1:] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)
    assert np.ptp(drawn) > 0.1  # so that the tolerance means something


def overlaps(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    w = np.minimum(boxes[:, 0] + boxes[:, 2], truth[:, 0] + truth[:, 2]) - np.maximum(boxes[:, 0], truth[:, 0])
    h = np.minimum(boxes[:, 1] + boxes[:, 3], truth[:, 1] + truth[:, 3]) - np.maximum(boxes[:, 1], truth[:, 1])
    shared = w.clip(0) * h.clip(0)
    return shared / (boxes[:, 2] * boxes[:, 3] + truth[:, 2] * truth[:, 3] - shared)


def test_intervals_have_a_seed(tmp_path: Path) -> None:
    boxes = {"a": BOXES, "b": TRUTH, "c": BOXES[[0, 2, 2, 2, 2]]}
    first, again, other = (score(tmp_path, three(), boxes, bootstrap=9, seed=seed).scores for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert {name: found.value for name, found in first.items()} == {name: found.value for name, found in other.items()}


def test_no_intervals(tmp_path: Path) -> None:
    alone = score(tmp_path / "a", Listed("nfs", [sequence()]), bootstrap=100)
    unasked = score(tmp_path / "b", three())
    for report in (alone, unasked):
        assert report.resamples == 0
        assert all((found.low, found.high) == (None, None) for found in report.scores.values())
        assert not any("interval" in line for line in notes(report))


def attributed() -> Listed:
    having = {"a": {"blur", "scale [x]"}, "b": {"blur"}, "c": set()}
    return Listed("nfs", [sequence(name, attributes=frozenset(of)) for name, of in having.items()])


def test_attributes(tmp_path: Path) -> None:
    report = score(tmp_path, attributed(), {"a": BOXES, "b": TRUTH, "c": TRUTH})
    assert report.attribute_sequences == {"blur": 2, "scale [x]": 1}
    assert report.attributes["blur"]["AUC"] == pytest.approx((AUC + 2000 / 21) / 2)
    assert report.attributes["scale [x]"] == pytest.approx({"AUC": AUC, "OP50": 60, "OP75": 40, "P": 100, "Pn": 60})
    assert ["scale [x]", "1", "59.05", "60.00", "40.00", "100.00", "60.00"] in rows(attribute_table(report))


def test_speed(tmp_path: Path) -> None:
    """The mean of 2 and 4 frames a second; the first frame took no time, and one is not known."""
    write_result(tmp_path, "a", BOXES[:4], np.array([0, 0.5, 0.25, 0]))
    (tmp_path / "times" / "a_time.txt").write_text("0\n0.5\n0.25\nnan\n")
    benchmark = Listed("nfs", [sequence("a", TRUTH[:4]), sequence("b")])
    put(tmp_path, "b", BOXES)
    assert evaluate(tmp_path, benchmark).fps == 3
    (tmp_path / "times" / "a_time.txt").unlink()
    assert evaluate(tmp_path, benchmark).fps is None


def test_curves(tmp_path: Path) -> None:
    report = score(tmp_path, Listed("nfs", [sequence()]))
    assert {name: len(curve.thresholds) for name, curve in report.curves.items()} == {
        "success": 21, "precision": 51, "norm_precision": 51
    }  # fmt: skip
    assert report.curves["success"].values[[0, 6, 7, 14, 15, 20]].tolist() == [80, 80, 60, 60, 40, 0]
    assert report.curves["precision"].values[[0, 2, 3, 9, 10, 19, 20]].tolist() == [40, 40, 60, 60, 80, 80, 100]
    assert report.curves["success"].values.mean() == pytest.approx(report.scores["AUC"].value)
    assert set(score(tmp_path, Listed("got10k", [sequence()])).curves) == {"success"}


def test_a_report_is_json(tmp_path: Path) -> None:
    """GOT-10k leaves out the only frame of a sequence of one, whose score is then no number."""
    report = score(tmp_path, Listed("got10k", [sequence("a"), sequence("b", TRUTH[:1])]), {"a": BOXES, "b": BOXES[:1]})
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["scores"]["AO"] == {"value": pytest.approx(AO), "low": None, "high": None}
    assert content["per_sequence"]["b"] == {"AO": None, "SR0.5": None, "SR0.75": None}
    assert len(content["curves"]["success"]["thresholds"]) == 101
    assert content["protocol"] == "got10k"
    assert content["tracker"] == tmp_path.name


def test_the_table_has_a_row_for_each_tracker(tmp_path: Path) -> None:
    first = score(tmp_path / "one", three(), bootstrap=50)
    second = score(tmp_path / "two", three(), {"a": TRUTH, "b": TRUTH}, tracker="[bold]two")
    assert "nfs in small, protocol pytracking" in shown(table(first, second))
    one, two = rows(table(first, second))
    assert one == ["one", "59.05 [59.05, 59.05]", "60.00 [60.00, 60.00]", "40.00 [40.00, 40.00]",
                       "100.00 [100.00, 100.00]", "60.00 [60.00, 60.00]", "-", "3 of 3"]  # fmt: skip
    assert two == ["[bold]two", "95.24", "100.00", "100.00", "100.00", "100.00", "-", "2 of 3"]


def test_attributes_of_several_trackers(tmp_path: Path) -> None:
    first = score(tmp_path / "one", attributed())
    second = score(tmp_path / "two", attributed(), {"b": TRUTH})
    assert rows(attribute_table(first, second)) == [
        ["blur", "1-2", "59.05", "95.24"], ["scale [x]", "0-1", "59.05", "-"]
    ]  # fmt: skip


def test_tables_are_of_one_kind(tmp_path: Path) -> None:
    report = score(tmp_path, three())
    other = score(tmp_path, Listed("got10k", [sequence("a")]))
    with refused(ValueError, report.benchmark, report.protocol, other.benchmark, other.protocol):
        table(report, other)
    with refused(ValueError, "report"):
        table()
    with refused(ValueError, report.benchmark, "attributes"):
        attribute_table(report)


def test_notes_say_how(tmp_path: Path) -> None:
    report: Report = score(tmp_path, three(), bootstrap=50)
    lines = notes(report)
    assert lacking(lines[0], report.protocol, report.toolkit) == []
    assert lacking(lines[1], "3 sequences", "15 frames", "0 frames", "95 %", 50) == []
    assert lines[2:] == report.policy
