"""Protocols: what the toolkits compute, on recorded cases and on five frames whose scores are worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fermt.evaluation import rules
from fermt.evaluation.protocols import DEFAULT_PROTOCOLS, PROTOCOLS, find_protocol

from .support.errors import refused
from .support.scoring import BOXES, TRUTH, Listed, changed, score, sequence, values

GOLDEN = Path(__file__).parent / "golden" / "metrics_seed0.npz"
# Key of the recorded scores -> protocol, benchmark, the truth that they are of, and what else is known of a frame.
RECORDED = {
    "got10k": ("got10k", "got10k", "gt", ("cover", "resolution")),
    "pytracking/lasot": ("pytracking", "lasot", "gt_absent", ("visible",)),
    "pytracking/lasot_extension_subset": ("pytracking", "lasot_ext", "gt_absent", ("visible",)),
    "pytracking/uav": ("pytracking", "uav123", "gt_absent", ()),
    "pytracking/nfs": ("pytracking", "nfs", "gt", ()),
    "trackingnet_devkit": ("trackingnet-devkit", "trackingnet", "gt", ()),
}
NAMES = {
    "ao": "AO",
    "sr50": "SR0.5",
    "sr75": "SR0.75",
    "auc": "AUC",
    "op50": "OP50",
    "op75": "OP75",
    "success": "AUC",
    "precision": "P",
    "norm_precision": "Pn",
    "coverage": "Coverage",
}


@pytest.mark.parametrize("key", RECORDED)
def test_recorded_scores(tmp_path: Path, key: str) -> None:
    protocol, benchmark, truth, known = RECORDED[key]
    with np.load(GOLDEN) as file:
        golden = dict(file)
    expected = {
        NAMES[name.rpartition("/")[2]]: float(golden[name]) for name in golden if name.rpartition("/")[0] == key
    }
    sequences = [
        sequence(f"seq{i}", golden[f"seq{i}/{truth}"], **{part: golden[f"seq{i}/{part}"] for part in known})
        for i in range(5)
    ]
    boxes = {f"seq{i}": golden[f"seq{i}/pred"] for i in range(5)}
    found = values(score(tmp_path, Listed(benchmark, sequences), boxes, protocol=protocol))
    assert found == pytest.approx(expected, rel=0, abs=1e-9)


def test_all_recorded_scores_are_compared() -> None:
    with np.load(GOLDEN) as file:
        assert {name.rpartition("/")[0] for name in file if not name.startswith("seq")} == set(RECORDED)


class Case(NamedTuple):
    """What is different from the plain five frames, and the scores worked out; "" where they are refused."""

    says: str
    protocol: str
    benchmark: str
    expected: dict[str, float] | str  # a part of the refusal, where it is one
    truth: np.ndarray = TRUTH
    boxes: np.ndarray = BOXES
    known: dict[str, Any] = {}  # noqa: RUF012  (never changed)


NAN = (np.nan,) * 4
FRAME_3 = np.array([True, True, True, False, True])  # is not visible
SIX = BOXES[[0, 1, 2, 3, 4, 4]]
COVER_3 = np.array([8, 1, 5, 0, 8])
COVER_0 = np.array([0, 1, 5, 3, 8])

# Points at overlaps 0, 0.05 ... 1 that a frame is a hit at, by "greater than": 20 of overlap 1, 7 of 1/3 (0 ... 0.3),
# 15 of 3/4 (0 ... 0.7), none of 0. The first frame's overlap is 1. The mean over 21 points and 5 frames is a sum / 105.
PLAIN = 20 + 20 + 7 + 0 + 15
# By trapezoids and "at least", each of them a share of the area, whose ends have half a step, 1/40: 1 of overlap 1;
# 1/40 + 6/20 of 1/3; 1/40 of 0; 1/40 + 15/20 of 3/4. Of pixels 0, 2.5 ... 50, "at most": 1 of 0; 16/20 + 1/40 of 10;
# 12/20 + 1/40 of 20; 19/20 + 1/40 of 2.5. Of sizes 0, 0.025 ... 0.5: 1 of 0; 1/40 of 0.5; 0 of 1; 15/20 + 1/40 of 1/8.
AREA = 1 + 1 + 0.325 + 0.025 + 0.775
AREA_P = 1 + 1 + 0.825 + 0.625 + 0.975
AREA_PN = 1 + 1 + 0.025 + 0 + 0.775

CASES = [
    Case("plain", "got10k", "got10k", {"AO": (1 + 1 / 3 + 0 + 3 / 4) / 4, "SR0.5": 2 / 4, "SR0.75": 1 / 4}),
    Case("plain", "pytracking", "nfs", {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 100, "Pn": 60}),
    Case("plain", "lasot-official", "lasot", {"AUC": PLAIN / 105, "P": 1, "Pn": 0.6}),
    Case(
        "plain", "trackingnet-devkit", "trackingnet",
        {"AUC": AREA * 20, "P": AREA_P * 20, "Pn": AREA_PN * 20, "Coverage": 100},
    ),
    # The first frame. Where it is left out, whatever it is; where it is replaced, whatever was predicted.
    Case(
        "first frame covered", "got10k", "got10k", {"AO": (1 + 1 / 3 + 0 + 3 / 4) / 4, "SR0.5": 2 / 4, "SR0.75": 1 / 4},
        known={"cover": COVER_0},
    ),
    Case(
        "first frame right", "pytracking", "nfs", {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 100, "Pn": 60},
        boxes=changed(BOXES, {0: TRUTH[0]}),
    ),
    # Clipping to an image of 40 x 30 pixels: half of frame 1's true box lies outside, and the predicted one is the
    # other half; frame 2's predicted box begins outside, and takes its whole width inside.
    Case(
        "clipping", "got10k", "got10k", {"AO": (1 + 1 + 0 + 3 / 4) / 4, "SR0.5": 3 / 4, "SR0.75": 2 / 4},
        truth=changed(TRUTH, {1: (30, 10, 20, 20), 2: (0, 10, 20, 20)}),
        boxes=changed(BOXES, {1: (30, 10, 10, 20), 2: (-10, 10, 20, 20)}), known={"resolution": (40, 30)},
    ),
    Case(  # overlaps 1, 1/2 (0 ... 0.45 are 10 points), 1/3, 0, 3/4; errors 0, 5, 10, 20, 2.5; sizes 0, 1/4, 1/2 ...
        "no clipping", "pytracking", "nfs",
        {"AUC": (20 + 10 + 7 + 0 + 15) / 1.05, "OP50": 40, "OP75": 20, "P": 100, "Pn": 40},
        truth=changed(TRUTH, {1: (30, 10, 20, 20), 2: (0, 10, 20, 20)}),
        boxes=changed(BOXES, {1: (30, 10, 10, 20), 2: (-10, 10, 20, 20)}), known={"resolution": (40, 30)},
    ),
    # Frame 3 is not visible. Its overlap is 0 anyway; its error is 20 pixels, a hit, or 1 true size, a miss.
    Case(
        "absent", "got10k", "got10k", {"AO": (1 + 1 / 3 + 3 / 4) / 3, "SR0.5": 2 / 3, "SR0.75": 1 / 3},
        known={"cover": COVER_3},
    ),
    Case(
        "absent, a miss in Pn", "pytracking", "lasot",
        {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 80, "Pn": 60}, known={"visible": FRAME_3},
    ),
    Case(
        "absent, a hit in Pn", "pytracking", "lasot_ext",
        {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 80, "Pn": 80}, known={"visible": FRAME_3},
    ),
    Case("absent", "lasot-official", "lasot", {"AUC": PLAIN / 105, "P": 0.8, "Pn": 0.6}, known={"visible": FRAME_3}),
    Case(  # flags are not looked at
        "absent", "trackingnet-devkit", "trackingnet",
        {"AUC": AREA * 20, "P": AREA_P * 20, "Pn": AREA_PN * 20, "Coverage": 100}, known={"visible": FRAME_3},
    ),
    # The target is absent in a frame that was predicted right: a miss, in all that keep it in the denominator.
    Case(
        "absent where the box was right", "pytracking", "lasot",
        {"AUC": (20 + 7 + 0 + 15) / 1.05, "OP50": 40, "OP75": 20, "P": 80, "Pn": 40},
        known={"visible": np.array([True, False, True, True, True])},
    ),
    Case(
        "absent where the box was right", "lasot-official", "lasot",
        {"AUC": (20 + 7 + 0 + 15) / 105, "P": 0.8, "Pn": 0.4},
        known={"visible": np.array([True, False, True, True, True])},
    ),
    # Frame 3 has a true box of zeros, and no flag says so.
    Case(
        "truth of zeros", "pytracking", "lasot", {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 80, "Pn": 80},
        truth=changed(TRUTH, {3: (0, 0, 0, 0)}), known={"visible": np.ones(5, bool)},
    ),
    Case(
        "truth of zeros", "pytracking", "nfs", {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 80, "Pn": 80},
        truth=changed(TRUTH, {3: (0, 0, 0, 0)}),
    ),
    Case(
        "truth of zeros, a hit in P", "pytracking", "uav123",
        {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 100, "Pn": 80},
        truth=changed(TRUTH, {3: (0, 0, 0, 0)}), boxes=changed(BOXES, {3: (500, 500, 9, 9)}),
    ),
    Case(
        "truth of zeros", "lasot-official", "lasot", {"AUC": PLAIN / 105, "P": 1, "Pn": 0.8},
        truth=changed(TRUTH, {3: (0, 0, 0, 0)}), boxes=changed(BOXES, {3: (500, 500, 9, 9)}),
    ),
    Case(  # overlap 0; the center of (30, 10, 20, 20) is sqrt(40^2 + 20^2) = 44.7 from 0, and 45, 47.5, 50 are above
        "truth of zeros", "trackingnet-devkit", "trackingnet",
        {"AUC": AREA * 20, "P": (AREA_P - 0.625 + 0.125) * 20, "Pn": AREA_PN * 20, "Coverage": 100},
        truth=changed(TRUTH, {3: (0, 0, 0, 0)}),
    ),
    Case(  # 0 shared of 0 is no overlap of 0, which would be a hit at 0; nothing is 0 sizes of 0 from the center
        "truth and box of zeros", "trackingnet-devkit", "trackingnet",
        {"AUC": (AREA - 0.025) * 20, "P": (AREA_P - 0.625 + 1) * 20, "Pn": AREA_PN * 20, "Coverage": 80},
        truth=changed(TRUTH, {3: (0, 0, 0, 0)}), boxes=changed(BOXES, {3: (0, 0, 0, 0)}),
    ),
    # A true box at the border, predicted right: LaSOT's toolkit wants x and y above 0 as well, the others do not.
    Case(
        "truth at the border", "lasot-official", "lasot", {"AUC": (20 + 7 + 0 + 15) / 105, "P": 1, "Pn": 0.6},
        truth=changed(TRUTH, {1: (0, 10, 20, 20)}), boxes=changed(BOXES, {1: (0, 10, 20, 20)}),
    ),
    Case(
        "truth at the border", "pytracking", "lasot",
        {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 100, "Pn": 60},
        truth=changed(TRUTH, {1: (0, 10, 20, 20)}), boxes=changed(BOXES, {1: (0, 10, 20, 20)}),
    ),
    # NaN in the truth of frame 3.
    Case("truth NaN", "got10k", "got10k", "a true box without NaN, got [nan, ", truth=changed(TRUTH, {3: NAN})),
    Case("truth NaN", "pytracking", "nfs", "got [nan, nan, nan, nan] in frame 3", truth=changed(TRUTH, {3: NAN})),
    Case(
        "truth NaN", "pytracking", "uav123", {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 100, "Pn": 80},
        truth=changed(TRUTH, {3: NAN}), boxes=changed(BOXES, {3: (500, 500, 9, 9)}),
    ),
    Case(
        "truth NaN", "lasot-official", "lasot", {"AUC": PLAIN / 105, "P": 1, "Pn": 0.8}, truth=changed(TRUTH, {3: NAN})
    ),
    Case(
        "truth NaN", "trackingnet-devkit", "trackingnet",
        {"AUC": (AREA - 0.025) * 20, "P": (AREA_P - 0.625) * 20, "Pn": AREA_PN * 20, "Coverage": 100},
        truth=changed(TRUTH, {3: NAN}),
    ),
    # NaN was predicted in frame 2. Where the box before replaces it, which is right, 7 points become 20.
    Case("box NaN", "got10k", "got10k", "four finite numbers, got [nan, ", boxes=changed(BOXES, {2: NAN})),
    Case("box NaN", "pytracking", "nfs", "got [nan, nan, nan, nan] in frame 2", boxes=changed(BOXES, {2: NAN})),
    Case(
        "box NaN", "lasot-official", "lasot", {"AUC": (PLAIN + 13) / 105, "P": 1, "Pn": 0.8},
        boxes=changed(BOXES, {2: NAN}),
    ),
    Case(
        "box NaN", "trackingnet-devkit", "trackingnet",
        {"AUC": (AREA - 0.325) * 20, "P": (AREA_P - 0.825) * 20, "Pn": (AREA_PN - 0.025) * 20, "Coverage": 80},
        boxes=changed(BOXES, {2: NAN}),
    ),
    # A box without width in frame 2, whose middle is the true one's.
    Case(
        "no width", "got10k", "got10k", {"AO": (1 + 0 + 0 + 3 / 4) / 4, "SR0.5": 2 / 4, "SR0.75": 1 / 4},
        boxes=changed(BOXES, {2: (20, 10, 0, 20)}),
    ),
    Case(
        "no width", "pytracking", "nfs", {"AUC": (PLAIN + 13) / 1.05, "OP50": 80, "OP75": 60, "P": 100, "Pn": 80},
        boxes=changed(BOXES, {2: (20, 10, 0, 20)}),
    ),
    Case(
        "no width", "lasot-official", "lasot", {"AUC": (PLAIN + 13) / 105, "P": 1, "Pn": 0.8},
        boxes=changed(BOXES, {2: (20, 10, 0, 20)}),
    ),
    Case(
        "no width", "trackingnet-devkit", "trackingnet",
        {"AUC": (AREA - 0.325 + 0.025) * 20, "P": (AREA_P - 0.825 + 1) * 20, "Pn": (AREA_PN - 0.025 + 1) * 20,
         "Coverage": 100},
        boxes=changed(BOXES, {2: (20, 10, 0, 20)}),
    ),
    Case(  # both become frame 1's: 20 + 20 + 20 + 20 + 15
        "no width twice", "pytracking", "nfs", {"AUC": 95 / 1.05, "OP50": 100, "OP75": 80, "P": 100, "Pn": 100},
        boxes=changed(BOXES, {2: (20, 10, 0, 20), 3: (20, 10, 20, 0)}),
    ),
    Case(  # what was predicted in frame 0 replaces it, not the truth that replaces frame 0
        "no width after the first", "pytracking", "nfs",
        {"AUC": (PLAIN - 20) / 1.05, "OP50": 40, "OP75": 20, "P": 80, "Pn": 40},
        boxes=changed(BOXES, {1: (10, 10, 0, 20)}),
    ),
    Case(  # no true box, no replacement: frame 2 is a hit in P and Pn, and frame 3 gets its box, without area
        "no width where the truth is NaN", "pytracking", "uav123",
        {"AUC": (20 + 20 + 0 + 0 + 15) / 1.05, "OP50": 60, "OP75": 40, "P": 80, "Pn": 80},
        truth=changed(TRUTH, {2: NAN}), boxes=changed(BOXES, {2: (90, 90, 0, 0), 3: (10, 10, 0, 20)}),
    ),
    Case("negative", "pytracking", "nfs", "that is not negative, got [20.0, 10.0, -1.0, 20.0] in frame 2",
         boxes=changed(BOXES, {2: (20, 10, -1, 20)})),
    Case(
        "negative", "lasot-official", "lasot", {"AUC": (PLAIN + 13) / 105, "P": 1, "Pn": 0.8},
        boxes=changed(BOXES, {2: (20, 10, -1, 20)}),
    ),
    # Lengths: a sixth box; no fifth one.
    Case("too long", "got10k", "got10k", "expected 5 boxes, one for each frame, got 6", boxes=SIX),
    Case(
        "too long", "pytracking", "nfs", {"AUC": PLAIN / 1.05, "OP50": 60, "OP75": 40, "P": 100, "Pn": 60},
        boxes=SIX,
    ),
    Case(
        "too long", "lasot-official", "lasot", {"AUC": PLAIN / 105, "P": 1, "Pn": 0.6}, boxes=SIX
    ),
    Case(
        "too long", "trackingnet-devkit", "trackingnet",
        {"AUC": AREA * 20, "P": AREA_P * 20, "Pn": AREA_PN * 20, "Coverage": 100}, boxes=SIX,
    ),
    Case("too short", "got10k", "got10k", "expected 5 boxes, one for each frame, got 4", boxes=BOXES[:4]),
    Case("too short", "pytracking", "lasot", "expected at least 5 boxes, one for each frame, got 4", boxes=BOXES[:4]),
    Case("too short", "lasot-official", "lasot", "expected at least 5 boxes", boxes=BOXES[:4]),
    Case(  # zeros, which are not replaced; the center is 20 and 20 pixels away
        "too short", "pytracking", "lasot_ext",
        {"AUC": (PLAIN - 15) / 1.05, "OP50": 40, "OP75": 40, "P": 80, "Pn": 40}, boxes=BOXES[:4],
    ),
    Case(
        "too short", "trackingnet-devkit", "trackingnet",
        {"AUC": (AREA - 0.775) * 20, "P": (AREA_P - 0.975) * 20, "Pn": (AREA_PN - 0.775) * 20, "Coverage": 80},
        boxes=BOXES[:4],
    ),
    # Rounding: halves go to even, so that 10.5 and 9.5 are 10, and 20.5 and 19.5 are 20.
    Case(
        "halves", "trackingnet-devkit", "trackingnet",
        {"AUC": AREA * 20, "P": AREA_P * 20, "Pn": AREA_PN * 20, "Coverage": 100},
        truth=changed(TRUTH, {1: (9.5, 10.4, 20.5, 20)}), boxes=changed(BOXES, {1: (10.5, 9.5, 19.5, 20.4)}),
    ),
    Case(  # shared 19.5 x 19 of 390 + 400 - 370.5: 0.8832 is above 0.85 and 17 points below it
        "halves", "pytracking", "nfs", {"AUC": (PLAIN - 2) / 1.05, "OP50": 60, "OP75": 40, "P": 100, "Pn": 60},
        boxes=changed(BOXES, {1: (10.5, 11, 19.5, 20)}),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.says}: {case.protocol} on {case.benchmark}")
def test_by_hand(tmp_path: Path, case: Case) -> None:
    benchmark = Listed(case.benchmark, [sequence("one", case.truth, **case.known)])
    if isinstance(case.expected, str):
        beside = Listed(case.benchmark, [sequence("two"), *benchmark.sequences])
        report = score(tmp_path, beside, {"two": BOXES, "one": case.boxes}, protocol=case.protocol)
        assert report.sequences == ["two"]  # which is not stopped
        assert [*report.failed] == ["one"]
        assert case.expected in report.failed["one"]
    else:
        report = score(tmp_path, benchmark, case.boxes, protocol=case.protocol)
        assert values(report) == pytest.approx(case.expected, rel=0, abs=1e-12)


FRAMES = [  # what is known of the frames; frames counted and invalid, by protocol on a data set
    ("got10k", "got10k", {"cover": COVER_3}, TRUTH, 3, 1),
    ("got10k", "got10k", {"cover": COVER_0}, TRUTH, 4, 0),
    ("pytracking", "lasot", {"visible": FRAME_3}, changed(TRUTH, {2: (0, 0, 0, 0)}), 5, 2),
    ("lasot-official", "lasot", {"visible": FRAME_3}, changed(TRUTH, {3: (0, 0, 0, 0)}), 5, 1),
    ("trackingnet-devkit", "trackingnet", {"visible": FRAME_3}, changed(TRUTH, {2: (0, 0, 0, 0)}), 5, 0),
]


@pytest.mark.parametrize(("protocol", "data_set", "known", "truth", "frames", "invalid"), FRAMES)
def test_frames_are_counted(
    tmp_path: Path, protocol: str, data_set: str, known: dict[str, Any], truth: np.ndarray, frames: int, invalid: int
) -> None:
    report = score(tmp_path, Listed(data_set, [sequence("one", truth, **known)]), protocol=protocol)
    assert (report.frames, report.invalid) == (frames, invalid)


def test_sequences_are_pooled_or_averaged(tmp_path: Path) -> None:
    """A second sequence has two frames, both right: one more frame of five, or one more sequence of two."""
    two = {"one": BOXES, "two": TRUTH[:2]}
    for name, expected in {"got10k": {"AO": (25 / 12 + 1) / 5}, "nfs": {"AUC": (62 / 1.05 + 2000 / 21) / 2}}.items():
        benchmark = Listed(name, [sequence("one"), sequence("two", TRUTH[:2])])
        found = values(score(tmp_path, benchmark, two))
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=0, abs=1e-12)


def test_sequences_without_a_hit(tmp_path: Path) -> None:
    """LaSOT's toolkit leaves them out of the curve that has none; where no curve has any, a score is 0."""
    unseen = sequence("two", visible=np.zeros(5, bool))
    found = score(tmp_path / "a", Listed("lasot", [sequence("one"), unseen]), protocol="lasot-official")
    assert values(found) == pytest.approx({"AUC": PLAIN / 105, "P": 1, "Pn": 0.6}, rel=0, abs=1e-12)
    assert found.per_sequence["two"] == {"AUC": 0, "P": 0, "Pn": 0}
    assert values(score(tmp_path / "b", Listed("lasot", [unseen]), protocol="lasot-official"))["AUC"] == 0
    averaged = score(tmp_path / "c", Listed("lasot", [sequence("one", visible=np.ones(5, bool)), unseen]))
    assert averaged.scores["AUC"].value == pytest.approx(PLAIN / 1.05 / 2, rel=0, abs=1e-12)


def test_what_is_taken_for_each_data_set() -> None:
    assert {name: find_protocol("auto", name).name for name in DEFAULT_PROTOCOLS} == {
        "got10k": "got10k", "trackingnet": "trackingnet-devkit",
        **dict.fromkeys(("lasot", "lasot_ext", "nfs", "uav123", "otb100"), "pytracking"),
    }  # fmt: skip
    assert find_protocol("auto", "uav123").truth is rules.ANY_TRUTH
    assert find_protocol("auto", "otb100").truth is rules.TRUTH_WITHOUT_NAN
    with refused(ValueError, "got10k", "'tnl2k'"):
        find_protocol("auto", "tnl2k")
    with refused(ValueError, "protocol", "auto, got10k, pytracking", "'otb'"):
        find_protocol("otb", "otb100")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_policies_say_each_rule(name: str) -> None:
    row = PROTOCOLS[name]
    policy = "\n".join(row.policy())
    for rule in (row.first, row.prepare, row.frames, row.truth, row.predictions, row.length):
        assert rule.description in policy
    assert all(f"\n{score}: " in policy for score in row.scores)


def test_policies_say_what_invalid_frames_count_as() -> None:
    policies = {name: find_protocol("pytracking", name).policy() for name in ("lasot", "lasot_ext", "uav123")}
    assert "target not visible: miss in success and precision and norm_precision" in policies["lasot"]
    assert "target not visible: miss in success and precision, hit in norm_precision" in policies["lasot_ext"]
    assert "true box not valid: miss in success, hit in precision and norm_precision" in policies["uav123"]
