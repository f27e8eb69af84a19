"""Benchmarks in folders: test sequences with their frames and ground truth."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..messages import first_few
from .folder import DatasetFolder, choose


@dataclasses.dataclass(frozen=True, eq=False)
class TestSequence:
    """One sequence of a benchmark, restricted to the frames that its list names."""

    __test__ = False  # not a class of tests for pytest

    name: str
    frames: Sequence[Path]  # N image files in order; listed on first use, not checked to exist
    boxes: np.ndarray  # (N, 4) float64, xywh in pixels as on disk, with NaN and zeros; (1, 4) where truth is withheld
    visible: np.ndarray | None = None  # (N,) bool: neither out of view nor fully covered; None if not annotated
    cover: np.ndarray | None = None  # (N,) int, 0 hidden ... 8 in full view (GOT-10k); None if not annotated
    resolution: tuple[int, int] | None = None  # width and height of its frames (GOT-10k); None if not annotated
    attributes: frozenset[str] = frozenset()  # such as "fast motion", in the data set's own terms

    @property
    def withheld(self) -> bool:
        """Whether a server keeps the ground truth of all but the first frame."""
        return len(self.boxes) == 1 < len(self.frames)


class Benchmark(Protocol):
    """Sequences to evaluate on, in their published order."""

    name: str  # such as "got10k"; selects the protocol
    split: str  # such as "val"; "test" if there is only one
    title: str  # name in print, such as "GOT-10k val"

    def __len__(self) -> int:
        """Returns the number of sequences."""

    def __getitem__(self, i: int) -> TestSequence:
        """Reads sequence `i`; OSError or ValueError name a file that is missing or wrong."""

    @property
    def sequence_names(self) -> list[str]:
        """The names of all sequences, without reading them."""


class BenchmarkFolder(DatasetFolder):
    """A `Benchmark` in a folder. Sequences are read on access.

    Args:
        root: the folder.
        split: one of `splits`, the first if None.
        only: sequences by name, or a file of them, a name (or an index, from 0) a line; None for all.

    Raises:
        FileNotFoundError: the root, or a sequence's annotation or folder of frames, is missing.
        ValueError: an unknown split, or sequences in `only` that the benchmark does not have.
    """

    label = ""  # name in print; {split} stands for the split
    published = 0  # number of sequences in each split

    def __init__(
        self, root: Path, split: str | None = None, only: Sequence[str] | str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(root, self.splits[0] if split is None else split)
        self.sequence_names = self._choose(self.listed(), only)
        self.title = self.label.format(split=self.split)
        if len(self) != self.published:  # scores of some sequences must not be taken for those of all
            self.title += f", {len(self)} of {self.published} sequences"
        self._check()

    def __len__(self) -> int:
        return len(self.sequence_names)

    def __getitem__(self, i: int) -> TestSequence:
        return self.read_sequence(self.sequence_names[i])

    def parts(self, sequence: str) -> tuple[Path, ...]:
        """The paths that must exist for a sequence: its annotation and its folder of frames."""
        raise NotImplementedError

    def read_sequence(self, sequence: str) -> TestSequence:
        """Reads the sequence of that name; OSError or ValueError name a file that is missing or wrong."""
        raise NotImplementedError

    def _choose(self, listed: list[str], only: Sequence[str] | str | os.PathLike[str] | None) -> list[str]:
        if only is None or isinstance(only, str | os.PathLike):
            names = choose(listed, None if only is None else Path(only), None)
        else:
            unknown = [name for name in only if name not in listed]
            if unknown:
                raise ValueError(
                    f"{self.name} has no sequence {first_few(unknown)}; expected names such as "
                    f"{first_few(listed[:2], ' and ')}"
                )
            names = [name for name in listed if name in only]
        if not names:
            raise ValueError(f"{self.name}: none of {len(listed)} sequences is left to evaluate on")
        return names

    def _check(self) -> None:
        missing = {name: [path for path in self.parts(name) if not path.exists()] for name in self.sequence_names}
        incomplete = {name: paths[0] for name, paths in missing.items() if paths}
        if incomplete:
            problems = [f"{name} (no {str(path)!r})" for name, path in incomplete.items()]
            raise FileNotFoundError(
                f"{self.name}: {len(incomplete)} of {len(self)} sequences in {str(self.root)!r} are incomplete:\n  "
                f"{first_few(problems, chr(10) + '  ')}\nRepair them, or name those to evaluate on (only). "
                f"{self.expected}"
            )
