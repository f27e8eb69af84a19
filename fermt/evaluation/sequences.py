"""What every benchmark is read as: sequences with their frames and what is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class TestSequence:
    """One sequence of a benchmark, cut to the frames that its list names."""

    __test__ = False  # pytest would take the name for a test

    name: str
    frames: Sequence[Path]  # N files, the first frame first; made when asked for, not checked to be there
    boxes: np.ndarray  # (N, 4) float64, xywh in pixels as on disk, NaN and zeros too; (1, 4) where truth is withheld
    visible: np.ndarray | None = None  # (N,) bool: neither out of view nor wholly covered, where the set says so
    cover: np.ndarray | None = None  # (N,) int, 0 hidden ... 8 in full view, where the set says so (GOT-10k)
    resolution: tuple[int, int] | None = None  # width and height of its frames, where the set says so (GOT-10k)
    attributes: frozenset[str] = frozenset()  # such as "fast motion", in the set's own terms

    @property
    def withheld(self) -> bool:
        """Whether the truth of all but the first frame is kept by a server."""
        return len(self.boxes) == 1 < len(self.frames)


class Benchmark(Protocol):
    """Sequences to evaluate on, in their published order."""

    name: str  # such as "got10k"; what protocols are chosen by
    split: str  # such as "val"; "test" where there is one only
    title: str  # as papers print it, such as "GOT-10k val"

    def __len__(self) -> int:
        """Sequences."""

    def __getitem__(self, i: int) -> TestSequence:
        """Sequence `i`: OSError or ValueError name a file that is missing or wrong."""

    @property
    def sequence_names(self) -> list[str]:
        """The names of all sequences, without reading any."""
