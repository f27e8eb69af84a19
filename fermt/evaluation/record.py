"""The record of an evaluation run in its results folder: settings, finished sequences and times."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fermt_kernels.files import atomic_write, delete_leftovers

from ..messages import differences
from ..textfiles import read_json
from .results import ResultError, read_result, write_result

RECORD = "run.json"
# Facts of a run that may change when it is continued.
MAY_CHANGE = ("weights", "workers", "machine", "numpy", "python")
TIMES, DECODING = "times", "_decoding.txt"


@dataclasses.dataclass(frozen=True)
class Record:
    """The content of `run.json`."""

    run: dict[str, Any]  # settings that the boxes depend on; runs with other settings are not mixed with it
    speed: str  # reason why times do not measure speed; empty if each sequence ran alone


def read_record(folder: Path) -> Record | None:
    """Reads the record of a folder; None if there has been no run.

    Raises:
        ValueError: the file is not a record.
    """
    path = folder / RECORD
    try:
        values = read_json(path)
        return Record(dict(values["run"]), str(values["speed"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not the record of a run ({error!r}); start again with --fresh") from error


def open_record(folder: Path, names: Sequence[str], run: dict[str, Any], speed: str) -> Record:
    """Begins or continues a run over the sequences `names` in a folder, and returns its record.

    Temporary files of a killed run are deleted. If times of a part of the run do not measure speed, none of them do.

    Raises:
        ValueError: the folder has another run's results, or results without a record; the message says what differs.
    """
    before = read_record(folder)
    if before is None:
        unknown = [name for name in names if (folder / f"{name}.txt").exists()]
        if unknown:
            raise ValueError(
                f"{str(folder)!r} has results without a {RECORD}, such as that of {unknown[0]!r}, so it "
                "is unknown which run made them: use another folder, or score them as they are with --results"
            )
    elif differ := differences(before.run, run, sorted((before.run.keys() | run.keys()).difference(MAY_CHANGE))):
        raise ValueError(
            f"{str(folder)!r} is of another run ({'; '.join(differ)}): use another folder, start again with --fresh, "
            "or score what is there with --results"
        )
    else:
        speed = before.speed or speed
    tidy(folder)
    record = Record(run, speed)
    atomic_write(folder / RECORD, json.dumps(dataclasses.asdict(record), indent=1) + "\n")
    return record


def tidy(folder: Path) -> None:
    """Deletes temporary files of processes that were ended while they wrote."""
    for place in (folder, folder / TIMES):
        delete_leftovers(place)


def is_done(folder: Path, name: str, frames: int) -> bool:
    """Whether all files of a sequence are there and have a row for each of its frames."""
    if not all(path.is_file() for path in _files(folder, name)):
        return False
    try:
        (result,) = read_result(folder, name)
    except ResultError:  # edited by hand
        return False
    return len(result.boxes) == frames


def save_sequence(folder: Path, name: str, boxes: np.ndarray, seconds: np.ndarray, decoding: np.ndarray) -> None:
    """Writes the files of a sequence; the boxes come last, so their file shows that all are complete.

    Args:
        boxes: (N, 4) xywh, the given box first.
        seconds: (N,) for `init`, then for each `update`.
        decoding: (N,) for reading each image.
    """
    (folder / TIMES).mkdir(parents=True, exist_ok=True)
    atomic_write(_files(folder, name)[2], "".join(f"{value:.8f}\n" for value in decoding))
    write_result(folder, name, boxes, seconds)


class Speed(NamedTuple):
    """Total times of some sequences."""

    frames: int
    tracking: float  # seconds in `init` and `update`
    reading: float  # seconds for reading images


def read_speed(folder: Path, names: Sequence[str]) -> Speed:
    """Sums the times of the sequences `names`; OSError or ValueError if a file is missing or damaged."""
    tracking, reading = ([np.loadtxt(_files(folder, name)[i], ndmin=1) for name in names] for i in (1, 2))
    return Speed(sum(map(len, tracking)), float(sum(map(np.sum, tracking))), float(sum(map(np.sum, reading))))


def clear(folder: Path) -> None:
    """Deletes the files of a run in a folder and nothing else."""
    for found in list((folder / TIMES).glob(f"*{DECODING}")):
        for path in _files(folder, found.name.removesuffix(DECODING)):
            path.unlink(missing_ok=True)
    (folder / RECORD).unlink(missing_ok=True)


def digest(path: Path) -> str:
    """Computes the SHA-256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """The files of a sequence: boxes, seconds of tracking, seconds of reading images."""
    return folder / f"{name}.txt", folder / TIMES / f"{name}_time.txt", folder / TIMES / f"{name}{DECODING}"
