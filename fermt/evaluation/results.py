"""Reads and writes results: the boxes of every sequence in a folder, and the seconds of every frame."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fermt_kernels.files import atomic_write

from ..textfiles import read_numbers

LAYOUT = """\
  <sequence>.txt                 a line x,y,w,h for each frame, the first one too; commas, tabs or spaces between them
  times/<sequence>_time.txt      seconds, a line for each frame (optional; may also be in the same folder as the boxes)
or, as the GOT-10k toolkit writes it,
  <sequence>/<sequence>_001.txt  and _002.txt ... for further repetitions
  <sequence>/<sequence>_time.txt seconds, a line for each frame and a column for each repetition (optional)"""

# Other names that pytracking's family and the GOT-10k toolkit use for a sequence's files.
OTHER_NAMES: dict[str, Callable[[str], tuple[str, ...]]] = {
    "uav123": lambda name: (f"uav_{name}",),
    "nfs": lambda name: (f"nfs_{name}",),
    "otb100": lambda name: (name.replace("-", "_"), name.replace("-", ".")),
}


class ResultError(ValueError):
    """A file of results that cannot be read; the message has the file, the line and the expected form."""


class Result(NamedTuple):
    """The result of one run over one sequence, as read from its files."""

    boxes: np.ndarray  # (N, 4) float64, xywh in pixels; one for each line, which may differ from the number of frames
    seconds: np.ndarray | None  # (N,) float64 for each frame; None without a file of times


def write_result(folder: Path, name: str, boxes: np.ndarray, seconds: np.ndarray) -> None:
    """Writes the boxes, (N, 4) xywh, and seconds, (N,), of a sequence, with three and eight decimals.

    The boxes are written last, so that if `<name>.txt` exists, it and its times are complete.

    Raises:
        ValueError: another shape, or a number that is not finite.
    """
    boxes, seconds = np.asarray(boxes, np.float64), np.asarray(seconds, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or seconds.shape != boxes.shape[:1]:
        raise ValueError(f"{name}: expected boxes (N, 4) and seconds (N,), got {boxes.shape} and {seconds.shape}")
    if not (np.isfinite(boxes).all() and np.isfinite(seconds).all()):
        t = int(np.argmin(np.isfinite(boxes).all(1) & np.isfinite(seconds)))
        raise ValueError(f"{name}: expected finite numbers, got box {boxes[t].tolist()}, {seconds[t]} s in frame {t}")
    (folder / "times").mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "times" / f"{name}_time.txt", "".join(f"{value:.8f}\n" for value in seconds))
    atomic_write(
        folder / f"{name}.txt", "".join(",".join(f"{value:.3f}" for value in box) + "\n" for box in boxes.tolist())
    )


def read_result(folder: Path, name: str, benchmark: str = "") -> list[Result]:
    """Reads the results of a sequence, one for each repetition. NaN and zeros are kept.

    Args:
        benchmark: name of the data set, whose `OTHER_NAMES` for the sequence are tried, too.

    Raises:
        FileNotFoundError: there is no result; the message shows the layouts, or the subfolder that has it.
        ResultError: a file of boxes or times is empty or cannot be parsed.
    """
    others = OTHER_NAMES[benchmark](name) if benchmark in OTHER_NAMES else ()
    name = next((one for one in (name, *others) if _exists(folder, one)), name)
    flat = folder / f"{name}.txt"
    if flat.is_file():
        places = (folder / "times" / f"{name}_time.txt", folder / f"{name}_time.txt")
        return [Result(_boxes(flat), _times(places, 1)[0])]
    repeated = _repetitions(folder, name)
    if not repeated:
        raise FileNotFoundError(_missing(folder, name))
    times = _times((folder / name / f"{name}_time.txt",), len(repeated))
    return [Result(_boxes(path), seconds) for path, seconds in zip(repeated, times, strict=True)]


def _exists(folder: Path, name: str) -> bool:
    return (folder / f"{name}.txt").is_file() or bool(_repetitions(folder, name))


def _repetitions(folder: Path, name: str) -> list[Path]:
    """Lists the files of boxes in the sequence's own folder, in the order of repetitions."""
    if not (folder / name).is_dir():
        return []
    found = ((path, path.stem.removeprefix(f"{name}_")) for path in (folder / name).glob("[!.]*.txt"))
    return [path for path, number in sorted(found, key=lambda pair: pair[1].zfill(8)) if number.isdecimal()]


def _boxes(path: Path) -> np.ndarray:
    """Reads boxes, (N, 4) float64."""
    rows = read_numbers(path, (4,), "four numbers x,y,w,h", error=ResultError)
    if not rows:
        raise ResultError(f"{str(path)!r} is empty: expected a line of four numbers x,y,w,h for each frame")
    return np.array(rows, np.float64)


def _times(places: Sequence[Path], runs: int) -> list[np.ndarray | None]:
    """Reads seconds, (N,) float64, of each run from a column; None without a file or column."""
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        return [None] * runs
    rows = read_numbers(path, range(1, sys.maxsize), "seconds, a column for each repetition", error=ResultError)
    columns = {len(row) for row in rows}
    if len(columns) > 1:
        raise ResultError(f"{str(path)!r}: expected as many columns in every line, got {sorted(columns)}")
    table = np.array(rows, np.float64).reshape(len(rows), -1)
    return [table[:, run] if run < table.shape[1] else None for run in range(runs)]


def _missing(folder: Path, name: str) -> str:
    if not folder.is_dir():
        return f"there is no folder of results {str(folder)!r}. Expected layout of it:\n{LAYOUT}"
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != name):
        if _exists(child, name):
            return f"no results of {name!r} in {str(folder)!r}, but in the folder below it: give {str(child)!r}"
    return f"no results of {name!r} in {str(folder)!r}. Expected layout of it:\n{LAYOUT}"
