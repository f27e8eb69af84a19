"""Benchmarks made of arrays, results written for them, and a five-frame case that is small enough to score by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fermt.datasets import TestSequence
from fermt.evaluation.scores import Report, evaluate

# The overlaps are ?, 1, 1/3, 0 and 3/4, where ? is the first frame's, the distances ?, 0, 10, 20 and 2.5 pixels, and
# those over the true size ?, 0, 0.5, 1 and 0.125.
TRUTH = np.array([(10, 10, 20, 20)] * 5, np.float64)
BOXES = np.array([(100, 100, 20, 20), (10, 10, 20, 20), (20, 10, 20, 20), (30, 10, 20, 20), (10, 10, 20, 15)], float)


class Listed:
    """A benchmark of sequences that are there already."""

    def __init__(self, name: str, sequences: Sequence[TestSequence]) -> None:
        self.name, self.split, self.title = name, "test", f"{name} in small"
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, i: int) -> TestSequence:
        return self.sequences[i]

    @property
    def sequence_names(self) -> list[str]:
        return [sequence.name for sequence in self.sequences]


def sequence(name: str = "one", boxes: np.ndarray = TRUTH, **known: Any) -> TestSequence:
    return TestSequence(name, [Path(f"{t}.jpg") for t in range(len(boxes))], boxes, **known)


def put(folder: Path, name: str, boxes: np.ndarray) -> None:
    """A file of results with every digit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(",".join(map(repr, box)) + "\n" for box in boxes.tolist()))


def score(
    folder: Path, benchmark: Listed, boxes: Mapping[str, np.ndarray] | np.ndarray = BOXES, **options: Any
) -> Report:
    """Of boxes by sequence, or of the same boxes for all."""
    for name in benchmark.sequence_names:
        if not isinstance(boxes, Mapping):
            put(folder, name, boxes)
        elif name in boxes:
            put(folder, name, boxes[name])
    return evaluate(folder, benchmark, **{"bootstrap": 0, **options})


def values(report: Report) -> dict[str, float]:
    return {name: found.value for name, found in report.scores.items()}


def changed(boxes: np.ndarray, rows: Mapping[int, Sequence[float]]) -> np.ndarray:
    """A copy with other rows."""
    copy = boxes.copy()
    for t, row in rows.items():
        copy[t] = row
    return copy
