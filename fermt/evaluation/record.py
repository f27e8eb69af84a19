"""What a run leaves in its folder: what it is a run of, which sequences are done, and what may be deleted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import write_aside
from .results import ResultError, read_result, write_result

RECORD = "run.json"
# Facts of a run that may change when it goes on.
FREE = ("weights", "workers", "machine", "numpy", "python")
LOCK = ".lock"
TIMES, DECODING = "times", "_decoding.txt"
_ASIDE = re.compile(r"\..+\.\d+")  # a file that was being written when its process was killed


@dataclasses.dataclass(frozen=True)
class Record:
    """What `run.json` has."""

    run: dict[str, Any]  # what the boxes depend on: they may not be mixed with those of another
    speed: str  # empty if each sequence ran alone, or else why times are no measurement of speed


def read_record(folder: Path) -> Record | None:
    """The record of a folder, or None where no run has been.

    Raises:
        ValueError: the file is not a record.
    """
    path = folder / RECORD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record(dict(values["run"]), str(values["speed"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not the record of a run ({error!r}); start afresh with --fresh") from error


def open_record(folder: Path, names: Sequence[str], run: dict[str, Any], speed: str) -> Record:
    """Begins a run over the sequences `names` in a folder, or goes on with it: the record that is there now.

    Files that were being written when the run was killed are deleted. Times that are no measurement of speed in a part
    of the run are none in all of it.

    Raises:
        ValueError: the folder has another run's results, or results without a record; the message says what differs.
    """
    before = read_record(folder)
    if before is None:
        strangers = [name for name in names if (folder / f"{name}.txt").exists()]
        if strangers:
            raise ValueError(
                f"{str(folder)!r} has results without a {RECORD}, such as that of {strangers[0]!r}, and what made them "
                "is not known: take another folder, or score them as they are with --results"
            )
    elif differ := _differences(before.run, run):
        raise ValueError(
            f"{str(folder)!r} is of another run ({'; '.join(differ)}): take another folder, start afresh with --fresh, "
            "or score what is there with --results"
        )
    else:
        speed = before.speed or speed
    _tidy(folder)
    record = Record(run, speed)
    write_aside(folder / RECORD, json.dumps(dataclasses.asdict(record), indent=1) + "\n")
    return record


def is_done(folder: Path, name: str, frames: int) -> bool:
    """Whether all that `keep` writes of a sequence is there, and has a row for each of its frames."""
    if not all(path.is_file() for path in _files(folder, name)):
        return False
    try:
        (result,) = read_result(folder, name)
    except ResultError:  # somebody has been at it
        return False
    return len(result.boxes) == frames


def keep(folder: Path, name: str, boxes: np.ndarray, seconds: np.ndarray, decoding: np.ndarray) -> None:
    """Writes what a sequence gave: its boxes are the last file to get its name, and so mean that all are there.

    Args:
        boxes: (N, 4) xywh, the given one first.
        seconds: (N,) of `init`, then of each `update`.
        decoding: (N,) seconds that reading each image took.
    """
    (folder / TIMES).mkdir(parents=True, exist_ok=True)
    write_aside(_files(folder, name)[2], "".join(f"{value:.8f}\n" for value in decoding))
    write_result(folder, name, boxes, seconds)


class Speed(NamedTuple):
    """What the frames of some sequences took altogether."""

    frames: int
    tracking: float  # seconds of `init` and `update`
    reading: float  # seconds of reading images


def read_speed(folder: Path, names: Sequence[str]) -> Speed:
    """Sums over the sequences `names`, which `keep` has written; OSError or ValueError if their files are not so."""
    tracking, reading = ([np.loadtxt(_files(folder, name)[i], ndmin=1) for name in names] for i in (1, 2))
    return Speed(sum(map(len, tracking)), float(sum(map(np.sum, tracking))), float(sum(map(np.sum, reading))))


def clear(folder: Path) -> None:
    """Deletes what a run has left in a folder, and nothing else there."""
    for known in list((folder / TIMES).glob(f"*{DECODING}")):
        for path in _files(folder, known.name.removesuffix(DECODING)):
            path.unlink(missing_ok=True)
    (folder / RECORD).unlink(missing_ok=True)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder for the length of the context, however its process ends.

    Raises:
        RuntimeError: another process is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows has none; two runs in one folder would only do their work twice
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"another run is at work in {str(folder)!r}: wait, or take another --out") from error
        yield


def _files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """What there is of a sequence: boxes, seconds of tracking, seconds of reading images."""
    return folder / f"{name}.txt", folder / TIMES / f"{name}_time.txt", folder / TIMES / f"{name}{DECODING}"


def _tidy(folder: Path) -> None:
    """Deletes files that were being written when a run was killed."""
    for path in (*folder.glob(".*"), *(folder / TIMES).glob(".*")):
        if _ASIDE.fullmatch(path.name):
            path.unlink()


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {before.get(name)!r}, and is to be {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in FREE and before.get(name) != now.get(name)
    ]
