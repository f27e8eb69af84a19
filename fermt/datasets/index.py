"""The index of a training set, four arrays with all annotations, and its cache."""

from __future__ import annotations

import hashlib
import logging
import sys
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fermt_kernels.files import atomic_write

from ..data.sequences import Annotation
from ..messages import first_few

if TYPE_CHECKING:
    from .training import TrainingFolder

VERSION = "1"  # of the stored form, and of the rules that decide which boxes are valid
logger = logging.getLogger(__name__)
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Index(NamedTuple):
    """The annotations of all sequences of a set, concatenated."""

    names: np.ndarray  # (S,) str
    starts: np.ndarray  # (S + 1,) int64: sequence i has the rows from starts[i] to starts[i + 1]
    boxes: np.ndarray  # (F, 4) float32, xywh in pixels
    valid: np.ndarray  # (F,) bool

    def annotation(self, i: int) -> Annotation:
        rows = slice(self.starts[i], self.starts[i + 1])
        return Annotation(self.boxes[rows].astype(np.float64), self.valid[rows])


def cache_folder() -> Path:
    """The folder for caches on this platform."""
    home = Path.home()
    places = {"darwin": home / "Library" / "Caches", "win32": home / "AppData" / "Local"}
    return places.get(sys.platform, home / ".cache") / "fermt"


def load_index(folder: TrainingFolder, cache: Path | None) -> Index:
    """Loads the index of a training set: from the folder `cache` if it is up to date there, else from the data set.

    Raises:
        ValueError: files of the data set are missing or wrong; the message counts them and names some.
    """
    if cache is None:
        return read_index(folder)
    path = cache / f"{folder.name}-{_digest(str(folder.root), folder.split, *folder.units)[:16]}.npz"
    state = _state(folder)
    if path.exists():
        index = _stored(path, state)
        if index is not None:
            return index
    index = read_index(folder)
    _store(path, index, state)
    return index


def read_index(folder: TrainingFolder) -> Index:
    """Reads the index from the data set; errors as `load_index`."""
    names: list[str] = []
    read: list[Annotation] = []
    problems: list[str] = []
    for unit in folder.units:
        try:
            for name, annotation in folder.read(unit):
                names.append(name)
                read.append(annotation)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError(
            f"{folder.name}: {len(problems)} of {len(folder.units)} annotations in {str(folder.root)!r} cannot be "
            f"read:\n  {first_few(problems, chr(10) + '  ')}\nRepair them, or leave their sequences out (exclude)."
        )
    if not names:
        raise ValueError(f"{folder.name}: there is no sequence in {str(folder.root)!r}")
    lengths = [len(annotation.valid) for annotation in read]
    return Index(
        np.array(names),
        np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
        np.concatenate([annotation.boxes for annotation in read]).astype(np.float32),
        np.concatenate([annotation.valid for annotation in read]),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _state(folder: TrainingFolder) -> str:
    """A digest of the sizes and times of the data set's annotation files and of `VERSION`."""
    facts = [VERSION]
    for unit in folder.units:
        for path in folder.files(unit):
            try:
                stat = path.stat()
            except OSError:
                facts.append(f"{path} is missing")
            else:
                facts.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return _digest(*facts)


def _stored(path: Path, state: str) -> Index | None:
    """Reads the index from a cache file; None, with a warning, if it is damaged or out of date."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["state"]) != state:
                logger.warning("the data set has changed since %s was written: it is read again", path)
                return None
            index = Index(*(file[name] for name in Index._fields))
    except _DAMAGED as error:
        logger.warning("%s is damaged (%s): the data set is read again", path, error)
        return None
    if len(index.starts) != len(index.names) + 1 or index.boxes.shape != (index.starts[-1], 4):
        logger.warning("%s is damaged (its arrays do not fit each other): the data set is read again", path)
        return None
    return index


def _store(path: Path, index: Index, state: str) -> None:
    """Writes a cache file; if that fails, a warning is logged and the data set will be read again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda file: np.savez(file, state=np.array(state), **index._asdict()))
    except OSError as error:
        logger.warning("the index of the data set cannot be cached in %s: %s", path, error)
