"""Protocol got10k beside the GOT-10k toolkit itself, on files that we wrote: for `make toolkits`, skipped elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fermt.datasets import TestSequence
from fermt.evaluation.results import write_result
from fermt.evaluation.scores import evaluate

from .support.datasets import HEIGHT, WIDTH, write_image, write_rows
from .support.scoring import Listed, sequence

NAME = "mine"
LENGTHS = (23, 41, 9)
REPETITIONS = (3, 1, 2)


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    reason = "the GOT-10k toolkit (got10k) is not installed"
    return pytest.importorskip("got10k.experiments", reason=reason).ExperimentGOT10k


def made(rng: np.random.Generator, i: int) -> TestSequence:
    """A target that leaves the image now and then, with frames where it is covered."""
    steps = rng.normal(0, 6, (LENGTHS[i], 4)).cumsum(0) * (1, 1, 0.2, 0.2)
    boxes = np.round(np.array([50, 40, 35, 25]) + steps, 2)
    boxes[:, 2:] = boxes[:, 2:].clip(4)
    cover = rng.integers(0, 9, LENGTHS[i])
    return sequence(f"GOT-10k_Val_{i + 1:06d}", boxes, cover=cover, resolution=(WIDTH, HEIGHT))


def test_the_toolkit_reports_the_same(experiment: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sequences = [made(rng, i) for i in range(len(LENGTHS))]
    root, results = tmp_path / "data" / "val", tmp_path / "results" / "GOT-10k" / NAME
    for s, repetitions in zip(sequences, REPETITIONS, strict=True):
        assert s.cover is not None
        write_rows(root / s.name / "groundtruth.txt", s.boxes.tolist())
        write_rows(root / s.name / "cover.label", s.cover[:, None].tolist())
        for label in ("absence", "cut_by_image"):
            write_rows(root / s.name / f"{label}.label", [[0]] * len(s.boxes))
        (root / s.name / "meta_info.ini").write_text(f"[METAINFO]\nresolution: ({WIDTH}, {HEIGHT})\n")
        for t in range(len(s.boxes)):
            write_image(root / s.name / f"{t + 1:08d}.jpg", (0, 0, 0))
        seconds = rng.uniform(0.01, 0.02, (len(s.boxes), repetitions))
        seconds[0] = 0
        for run in range(repetitions):
            boxes = s.boxes + rng.normal(0, 4, s.boxes.shape)
            boxes[3, 2] = -1  # of no area once it is clipped
            write_result(results / s.name, f"{s.name}_{run + 1:03d}", boxes, seconds[:, run])
        write_rows(results / s.name / f"{s.name}_time.txt", seconds.tolist())
    (root / "list.txt").write_text("".join(f"{s.name}\n" for s in sequences))

    toolkit = experiment(
        str(tmp_path / "data"), "val", result_dir=str(tmp_path / "results"), report_dir=str(tmp_path / "reports")
    ).report([NAME])[NAME]
    report = evaluate(results, Listed("got10k", sequences))
    overall = toolkit["overall"]
    assert report.scores["AO"].value == pytest.approx(overall["ao"], rel=0, abs=1e-12)
    assert report.scores["SR0.5"].value == overall["sr"]
    np.testing.assert_allclose(report.curves["success"].values, overall["succ_curve"], rtol=0, atol=1e-12)
    assert report.fps == pytest.approx(overall["speed_fps"], rel=1e-12)
    for name, scores in report.per_sequence.items():
        assert scores["AO"] == pytest.approx(toolkit["seq_wise"][name]["ao"], rel=0, abs=1e-12)
        assert scores["SR0.5"] == toolkit["seq_wise"][name]["sr"]
    assert 0.3 < overall["ao"] < 0.9
    assert 0 < report.invalid < report.frames
