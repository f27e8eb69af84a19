"""What `benchmarks.accuracy` prints and writes of the scores of many trackers on many sequences."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
from rich import box
from rich.table import Table

from . import machine
from .accuracy_data import Scores
from .accuracy_trackers import Entry

MEAN = "mean"  # the group of all sequences
LEGEND = (
    "AO: mean IoU. SR0.5: fraction of frames with IoU above 0.5. AUC: area under the success curve. All over the "
    "labelled frames after the first, where the target is given; means are over sequences."
)
Results = dict[str, dict[str, Scores]]  # by sequence, by tracker


def means(results: Results, groups: Mapping[str, Sequence[str]]) -> Results:
    """The mean of each group and of all, by tracker; groups are cut to the sequences that are done, empty ones gone."""
    every = {name: [each for each in names if each in results] for name, names in {**groups, MEAN: [*results]}.items()}
    return {
        name: {tracker: Scores.mean([results[each][tracker] for each in names]) for tracker in results[names[0]]}
        for name, names in every.items()
        if names
    }


def tables(results: Results, averages: Results) -> list[Table]:
    """One of every sequence, a row each, and one of the means."""
    made = []
    for title, rows in (("Each sequence: AO, SR0.5, AUC", results), ("Means over sequences: AO, SR0.5, AUC", averages)):
        table = Table("", title=title, box=box.SIMPLE)
        for tracker in next(iter(results.values())):
            table.add_column(tracker, justify="right")
        for name, by_tracker in rows.items():
            cells = ("  ".join(f"{value:.3f}" for value in s[:3]) for s in by_tracker.values())
            table.add_row(name, *cells)
        made.append(table)
    return made


def commit() -> str | None:
    """The commit that this checkout is at, "+" if files differ from it; None outside of one."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        head, changes = (
            subprocess.run((*git, *what), capture_output=True, text=True, check=True).stdout.strip()
            for what in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changes)


def record(
    taking_part: Sequence[Entry], results: Results, averages: Results, groups: Any, failures: Any, frames: int
) -> str:
    """All of it as JSON."""
    return json.dumps(
        {
            "benchmark": "accuracy",
            "commit": commit(),
            "opencv": cv2.__version__,
            "onnxruntime": version("onnxruntime") if find_spec("onnxruntime") else None,
            **machine.facts(),
            "frames_limit": frames or None,
            "groups": groups,
            "trackers": {entry.name: entry.facts for entry in taking_part},
            "means": _plain(averages),
            "sequences": _plain(results),
            "failed": failures,
        },
        indent=1,
    )


def _plain(results: Results) -> dict[str, Any]:
    return {name: {who: scores._asdict() for who, scores in by.items()} for name, by in results.items()}
