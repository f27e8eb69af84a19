"""What the benchmarks share: the choice of sequences, the check that they are there, lists and attributes."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from ...data.readers.reader import OnDisk, chosen, read_boxes, read_flags, told
from ..sequences import TestSequence


class FolderBenchmark(OnDisk):
    """A `Benchmark` as it lies on disk; subclasses say what `layout` shows. A sequence is read when it is asked for.

    Args:
        root: the folder that holds it.
        split: one of `splits`, the first if None.
        only: sequences by name, or a file of them, a name (or an index, from 0) a line; None for all.

    Raises:
        FileNotFoundError: the root, or a sequence's annotation or folder of frames, is not there.
        ValueError: an unknown split, or sequences in `only` that the benchmark does not have.
    """

    label = ""  # as papers print it; {split} stands for the split
    published = 0  # sequences in each split

    def __init__(
        self, root: Path, split: str | None = None, only: Sequence[str] | str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(root, self.splits[0] if split is None else split)
        self.sequence_names = self._chosen(self.listed(), only)
        self.title = self.label.format(split=self.split)
        if len(self) != self.published:  # nobody shall take the scores of some sequences for those of all
            self.title += f", {len(self)} of {self.published} sequences"
        self._check()

    def __len__(self) -> int:
        return len(self.sequence_names)

    def __getitem__(self, i: int) -> TestSequence:
        return self.read(self.sequence_names[i])

    def listed(self) -> list[str]:
        """The names of the split's sequences, in their published order."""
        raise NotImplementedError

    def parts(self, sequence: str) -> tuple[Path, ...]:
        """What must be there of a sequence: its annotation and its folder of frames."""
        raise NotImplementedError

    def read(self, sequence: str) -> TestSequence:
        """The sequence of that name; OSError or ValueError name a file that is missing or wrong."""
        raise NotImplementedError

    def _chosen(self, listed: list[str], only: Sequence[str] | str | os.PathLike[str] | None) -> list[str]:
        if only is None or isinstance(only, str | os.PathLike):
            names = chosen(listed, None if only is None else Path(only), None)
        else:
            unknown = [name for name in only if name not in listed]
            if unknown:
                raise ValueError(
                    f"{self.name} has no sequence {told(unknown)}; expected names such as {told(listed[:2], ' and ')}"
                )
            names = [name for name in listed if name in only]
        if not names:
            raise ValueError(f"{self.name}: none of {len(listed)} sequences is left to evaluate on")
        return names

    def _check(self) -> None:
        missing = {name: [path for path in self.parts(name) if not path.exists()] for name in self.sequence_names}
        lacking = {name: paths[0] for name, paths in missing.items() if paths}
        if lacking:
            problems = [f"{name} (no {str(path)!r})" for name, path in lacking.items()]
            raise FileNotFoundError(
                f"{self.name}: {len(lacking)} of {len(self)} sequences are not whole in {str(self.root)!r}:\n  "
                f"{told(problems, chr(10) + '  ')}\nRepair them, or name those to evaluate on (only). {self.expected}"
            )


def sequence_list(name: str) -> dict[str, dict[str, str]]:
    """The rows of `lists/<name>.csv`, in their order, each by its column "name"."""
    text = (files(__package__) / "lists" / f"{name}.csv").read_text(encoding="utf-8")
    return {row["name"]: row for row in csv.DictReader(text.splitlines())}


def read_truth(path: Path) -> np.ndarray:
    """(N, 4) float64, N at least 1: the boxes of a file; ValueError names its fault."""
    boxes = read_boxes(path)
    if not len(boxes):
        raise ValueError(f"{str(path)!r}: expected four numbers x,y,w,h for each frame, got an empty file")
    return boxes


def read_cut(path: Path, start: int, end: int) -> np.ndarray:
    """(end - start + 1, 4) float64: the boxes of a file that has one for each frame from `start` to `end`."""
    boxes, count = read_boxes(path), end - start + 1
    if len(boxes) != count:
        raise ValueError(
            f"{str(path)!r}: expected {count} lines, one for each frame from {start} to {end}, got {len(boxes)}"
        )
    return boxes


def read_attributes(path: Path, terms: Sequence[str]) -> frozenset[str]:
    """Those of `terms` whose flag in the file is not 0; none where the folder of such files is not there.

    Raises:
        OSError: the folder is there, but not the file.
        ValueError: it does not have one whole number for each of `terms`.
    """
    if not path.parent.exists():
        return frozenset()
    flags = read_flags(path, len(terms), "attribute")
    return frozenset(term for term, flag in zip(terms, flags, strict=True) if flag)
