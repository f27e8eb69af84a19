"""Data sets by name, each read as a `SequenceSet`."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np

from ..sequences import Annotation, SequenceSet, read_image
from .coco import COCO
from .got10k import GOT10k
from .imagenet_vid import ImageNetVID
from .index import Index, cache_folder, load_index
from .lasot import LaSOT
from .reader import Reader
from .trackingnet import TrackingNet

__all__ = ["MADE", "READERS", "FileSet", "cache_folder", "open_set"]

READERS: dict[str, type[Reader]] = {one.name: one for one in (GOT10k, LaSOT, TrackingNet, COCO, ImageNetVID)}
MADE = {"synthetic": ("fermt.data.synthetic", "SyntheticSequences")}  # sets without files: module, and class in it


class FileSet:
    """A `SequenceSet` of image files."""

    def __init__(self, reader: Reader, index: Index) -> None:
        self.name, self.is_video = reader.name, reader.is_video
        self._reader, self._index = reader, index

    def __len__(self) -> int:
        return len(self._index.names)

    def annotation(self, i: int) -> Annotation:
        return self._index.annotation(range(len(self))[i])

    def image(self, i: int, t: int) -> np.ndarray:
        return read_image(self.path(i, t))

    def path(self, i: int, t: int) -> Path:
        """The file of frame `t` of sequence `i`."""
        return self._reader.image_path(str(self._index.names[i]), t)


def open_set(
    name: str,
    root: str | os.PathLike[str] | None,
    *,
    split: str = "train",
    only: str | os.PathLike[str] | None = None,
    exclude: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | bool = True,
) -> SequenceSet:
    """The data set of that name: got10k, lasot, trackingnet, coco, imagenet_vid, or synthetic, which has no root.

    Args:
        root: the folder that holds it; if something is missing there, the error shows the layout.
        split: "train", or "val" where there is one.
        only: a file of what to read of it, a sequence's name (or its index, from 0) a line.
        exclude: a file of what to leave out, such as the sequences that a challenge forbids.
        cache: folder for what was read of the annotations; True for the platform's own, False for none.

    Raises:
        FileNotFoundError: the root, or what belongs in it, is not there.
        ValueError: an unknown name or split, a root too many or too few, or annotations that are missing or wrong.
    """
    if name in MADE:
        if root is not None:
            raise ValueError(f"{name} has no root; got {os.fspath(root)!r}")
        module, made = MADE[name]
        return getattr(importlib.import_module(module), made)()
    if name not in READERS:
        raise ValueError(f"unknown data set {name!r}; expected one of {', '.join((*READERS, *MADE))}")
    if root is None:
        raise ValueError(f"{name} needs a root. Expected layout:\n{READERS[name].layout}")
    reader = READERS[name](
        Path(root), split, None if only is None else Path(only), None if exclude is None else Path(exclude)
    )
    folder = cache_folder() if cache is True else None if cache is False else Path(cache)
    return FileSet(reader, load_index(reader, folder))
