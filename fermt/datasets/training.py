"""Training sets in folders: what each data set provides, and their view as a `SequenceSet`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..data.sequences import Annotation
from ..images import read_image
from .folder import DatasetFolder, choose
from .index import Index


class TrainingFolder(DatasetFolder):
    """The training sequences of a data set in a folder.

    A unit is what is listed, chosen and read at a time: usually a sequence.

    Raises:
        ValueError: a file of sequences that does not fit; otherwise as `DatasetFolder`.
    """

    is_video = True

    def __init__(self, root: Path, split: str, only: Path | None, exclude: Path | None) -> None:
        super().__init__(root, split)
        listed = self.listed()
        self.units = choose(listed, only, exclude)
        if not self.units:
            raise ValueError(f"{self.name}: none of {len(listed)} sequences in {str(root)!r} is left to read")

    def files(self, unit: str) -> tuple[Path, ...]:
        """The files or folders that a unit is read from; a change of one invalidates the cache."""
        raise NotImplementedError

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        """Reads the sequences of a unit, by name; OSError or ValueError name a file that is missing or wrong."""
        raise NotImplementedError

    def image_path(self, sequence: str, t: int) -> Path:
        """The file of frame `t`, from 0, of a sequence."""
        raise NotImplementedError


class FileSet:
    """A `SequenceSet` of image files."""

    def __init__(self, folder: TrainingFolder, index: Index) -> None:
        self.name, self.is_video = folder.name, folder.is_video
        self._folder, self._index = folder, index

    def __len__(self) -> int:
        return len(self._index.names)

    def annotation(self, i: int) -> Annotation:
        return self._index.annotation(range(len(self))[i])

    def image(self, i: int, t: int) -> np.ndarray:
        return read_image(self.path(i, t))

    def path(self, i: int, t: int) -> Path:
        """The file of frame `t` of sequence `i`."""
        return self._folder.image_path(str(self._index.names[i]), t)
