"""What the readers of data sets share: the root's check, the choice of sequences, and files of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..sequences import Annotation

NAMED = 5  # problems that a message spells out


class OnDisk:
    """A data set in a folder: its root and split, and what must be there.

    Raises:
        FileNotFoundError: the root, or what belongs in it, is not there; the message has the expected layout.
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

    def require(self, *paths: Path) -> Path:
        """The first of `paths` that exists; FileNotFoundError, with the layout, if none does."""
        for path in paths:
            if path.exists():
                return path
        missing = " and no ".join(repr(str(path)) for path in paths)
        raise FileNotFoundError(f"{self.name}: there is no {missing}. {self.expected}")

    def folders(self, path: Path, pattern: str) -> list[str]:
        """Names of the folders in `path` that match, sorted; FileNotFoundError, with the layout, if there is none."""
        found = sorted(folder.name for folder in self.require(path).glob(pattern) if folder.is_dir())
        if not found:
            self.require(path / pattern)
        return found

    @property
    def expected(self) -> str:
        """What an error says of the layout."""
        return f"Expected layout of the root:\n{self.layout}"


class Reader(OnDisk):
    """How one data set lies on disk; subclasses say what `layout` shows.

    A unit is what is listed, chosen and read at once: mostly a sequence.

    Raises:
        ValueError: a file of sequences that does not fit; otherwise as of `OnDisk`.
    """

    is_video = True

    def __init__(self, root: Path, split: str, only: Path | None, exclude: Path | None) -> None:
        super().__init__(root, split)
        listed = self.listed()
        self.units = chosen(listed, only, exclude)
        if not self.units:
            raise ValueError(f"{self.name}: none of {len(listed)} sequences in {str(root)!r} is left to read")

    def listed(self) -> list[str]:
        """The units of the split, in their published order."""
        raise NotImplementedError

    def files(self, unit: str) -> tuple[Path, ...]:
        """The files or folders whose change makes what was read of the unit out of date."""
        raise NotImplementedError

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        """The sequences of a unit, by name; OSError or ValueError name a file that is missing or wrong."""
        raise NotImplementedError

    def image_path(self, sequence: str, t: int) -> Path:
        """Where frame `t`, from 0, of the sequence of that name is."""
        raise NotImplementedError


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, less empty ones at its end."""
    return path.read_text(encoding="utf-8").rstrip().splitlines()


def read_boxes(path: Path) -> np.ndarray:
    """(N, 4) float64 of a file with four numbers a line, between commas, tabs or spaces; ValueError names its fault."""
    lines = read_lines(path)
    rows = [line.replace(",", " ").split() for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 4:
            raise ValueError(f"{str(path)!r}, line {number}: expected four numbers x,y,w,h, got {lines[number - 1]!r}")
    try:
        return np.array(rows, np.float64).reshape(-1, 4)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: expected four numbers x,y,w,h a line: {error}") from error


def read_flags(path: Path, count: int, each: str = "box") -> np.ndarray:
    """(count,) int of a file with one whole number for each box, or whatever `each` says, a line each or all in one.

    ValueError names its fault.
    """
    words = path.read_text(encoding="utf-8").replace(",", " ").split()
    if len(words) != count:
        raise ValueError(f"{str(path)!r}: expected {count} numbers, one for each {each}, got {len(words)}")
    try:
        return np.array(words).astype(np.int64) if count else np.zeros(0, np.int64)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: expected whole numbers: {error}") from error


def chosen(listed: Sequence[str], only: Path | None, exclude: Path | None) -> list[str]:
    """Those of `listed` that the file `only` has, and the file `exclude` has not, each once and in the listed order."""
    wanted = set(listed) if only is None else _named(listed, only)
    unwanted = set() if exclude is None else _named(listed, exclude)
    return [name for name in dict.fromkeys(listed) if name in wanted and name not in unwanted]


def _named(listed: Sequence[str], path: Path) -> set[str]:
    """The names in a file: a name a line, or an index into `listed` a line, from 0."""
    lines = [line.strip() for line in read_lines(path)]
    if all(line.isdecimal() for line in lines):
        beyond = [line for line in lines if int(line) >= len(listed)]
        if beyond:
            raise ValueError(f"{str(path)!r}: expected indices below {len(listed)}, got {told(beyond)}")
        return {listed[int(line)] for line in lines}
    known = set(listed)
    unknown = [line for line in lines if line not in known]
    if unknown:
        example = f" such as {listed[0]!r}" if listed else ""
        raise ValueError(f"{str(path)!r}: expected names of sequences{example}, or indices from 0; got {told(unknown)}")
    return set(lines)


def told(items: Sequence[str], separator: str = ", ") -> str:
    """The first few of `items`, and how many more there are."""
    more = f"{separator}and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return separator.join(items[:NAMED]) + more
