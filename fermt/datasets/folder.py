"""A data set's folder: the check of its layout, the choice of sequences, and readers for its text files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from ..messages import first_few
from ..textfiles import read_names, read_numbers, read_text


class DatasetFolder:
    """A data set in a folder; subclasses show the expected layout.

    Args:
        root: the folder.
        split: one of `splits`.

    Raises:
        FileNotFoundError: the root or a part of it is missing; the message shows the expected layout.
        ValueError: an unknown split.
    """

    name = ""
    splits: tuple[str, ...] = ("train",)
    layout = ""

    def __init__(self, root: Path, split: str) -> None:
        if split not in self.splits:
            raise ValueError(f"{self.name} has split {' or '.join(self.splits)}; got {split!r}")
        self.root, self.split = root.expanduser().resolve(), split
        self.require(self.root)

    def listed(self) -> list[str]:
        """Lists the names of the split's sequences, in their published order."""
        raise NotImplementedError

    def require(self, *paths: Path) -> Path:
        """Returns the first of `paths` that exists; FileNotFoundError, with the layout, if none does."""
        for path in paths:
            if path.exists():
                return path
        missing = " and no ".join(repr(str(path)) for path in paths)
        raise FileNotFoundError(f"{self.name}: there is no {missing}. {self.expected}")

    def folders(self, path: Path, pattern: str) -> list[str]:
        """Names of the folders in `path` that match, sorted; FileNotFoundError, with the layout, if there is none."""
        matching = (folder for folder in self.require(path).glob(pattern) if folder.is_dir())
        found = sorted(folder.name for folder in matching if not folder.name.startswith("."))
        if not found:
            self.require(path / pattern)
        return found

    @property
    def expected(self) -> str:
        """The part of an error message that shows the layout."""
        return f"Expected layout of the root:\n{self.layout}"


def read_boxes(path: Path) -> np.ndarray:
    """Reads boxes, (N, 4) float64, from a file with four numbers a line between commas, tabs or spaces.

    Raises:
        ValueError: a line has another form; the message names the line.
    """
    return np.array(read_numbers(path, (4,), "four numbers x,y,w,h"), np.float64).reshape(-1, 4)


def read_truth(path: Path) -> np.ndarray:
    """Reads boxes as `read_boxes`; ValueError if there is none."""
    boxes = read_boxes(path)
    if not len(boxes):
        raise ValueError(f"{str(path)!r}: expected four numbers x,y,w,h for each frame, got an empty file")
    return boxes


def read_cut(path: Path, start: int, end: int) -> np.ndarray:
    """Reads boxes as `read_boxes`; ValueError unless there is one for each frame from `start` to `end`."""
    boxes, count = read_boxes(path), end - start + 1
    if len(boxes) != count:
        raise ValueError(
            f"{str(path)!r}: expected {count} lines, one for each frame from {start} to {end}, got {len(boxes)}"
        )
    return boxes


def read_flags(path: Path, count: int, unit: str = "box") -> np.ndarray:
    """Reads `count` whole numbers, (count,) int64, in one line or several.

    Args:
        unit: what each number belongs to, for messages.

    Raises:
        ValueError: there is another number of words, or one is not a whole number.
    """
    words = read_text(path).replace(",", " ").split()
    if len(words) != count:
        raise ValueError(f"{str(path)!r}: expected {count} numbers, one for each {unit}, got {len(words)}")
    try:
        return np.array(words).astype(np.int64) if count else np.zeros(0, np.int64)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: expected whole numbers: {error}") from error


def read_attributes(path: Path, terms: Sequence[str]) -> frozenset[str]:
    """Reads those of `terms` whose flag in the file is not 0; none if the folder of such files is missing.

    Raises:
        OSError: the folder is there, but not the file.
        ValueError: the file does not have one whole number for each of `terms`.
    """
    if not path.parent.exists():
        return frozenset()
    flags = read_flags(path, len(terms), "attribute")
    return frozenset(term for term, flag in zip(terms, flags, strict=True) if flag)


def sequence_list(name: str) -> dict[str, dict[str, str]]:
    """Reads the rows of `lists/<name>.csv` in order, by their column "name"."""
    text = (files(__package__) / "lists" / f"{name}.csv").read_text(encoding="utf-8")
    return {row["name"]: row for row in csv.DictReader(text.splitlines())}


def choose(listed: Sequence[str], only: Path | None, exclude: Path | None) -> list[str]:
    """Selects the names that are in the file `only` and not in the file `exclude`, without repetition, in order."""
    wanted = set(listed) if only is None else _read_names(listed, only)
    unwanted = set() if exclude is None else _read_names(listed, exclude)
    return [name for name in dict.fromkeys(listed) if name in wanted and name not in unwanted]


def _read_names(listed: Sequence[str], path: Path) -> set[str]:
    """Reads names from a file: a name a line, or an index into `listed` a line, from 0."""
    lines = read_names(path)
    if all(line.isdecimal() for line in lines):
        beyond = [line for line in lines if int(line) >= len(listed)]
        if beyond:
            raise ValueError(f"{str(path)!r}: expected indices below {len(listed)}, got {first_few(beyond)}")
        return {listed[int(line)] for line in lines}
    names = set(listed)
    unknown = [line for line in lines if line not in names]
    if unknown:
        example = f" such as {listed[0]!r}" if listed else ""
        raise ValueError(
            f"{str(path)!r}: expected names of sequences{example}, or indices from 0; got {first_few(unknown)}"
        )
    return set(lines)
