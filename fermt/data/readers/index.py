"""What is read of a data set, in four arrays, and the cache that saves reading it again."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..sequences import Annotation
from .reader import Reader, told

VERSION = "1"  # of what is stored, and of what the readers take for valid
logger = logging.getLogger(__name__)
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Index(NamedTuple):
    """The sequences of a set, one after the other."""

    names: np.ndarray  # (S,) str
    starts: np.ndarray  # (S + 1,) int64: sequence i has the rows from starts[i] to starts[i + 1]
    boxes: np.ndarray  # (F, 4) float32, xywh in pixels
    valid: np.ndarray  # (F,) bool

    def annotation(self, i: int) -> Annotation:
        rows = slice(self.starts[i], self.starts[i + 1])
        return Annotation(self.boxes[rows].astype(np.float64), self.valid[rows])


def cache_folder() -> Path:
    """Where this platform keeps what can be made again."""
    home = Path.home()
    places = {"darwin": home / "Library" / "Caches", "win32": home / "AppData" / "Local"}
    return places.get(sys.platform, home / ".cache") / "fermt"


def load_index(reader: Reader, cache: Path | None) -> Index:
    """The index of what `reader` reads: from the folder `cache` if it is there and up to date, else read, and kept.

    Raises:
        ValueError: files of the data set are missing or wrong; the message names some, and says how many.
    """
    if cache is None:
        return read_index(reader)
    path = cache / f"{reader.name}-{_digest(str(reader.root), reader.split, *reader.units)[:16]}.npz"
    state = _state(reader)
    if path.exists():
        index = _stored(path, state)
        if index is not None:
            return index
    index = read_index(reader)
    _store(path, index, state)
    return index


def read_index(reader: Reader) -> Index:
    """The index, read from the data set itself; errors as of `load_index`."""
    names: list[str] = []
    read: list[Annotation] = []
    problems: list[str] = []
    for unit in reader.units:
        try:
            for name, annotation in reader.read(unit):
                names.append(name)
                read.append(annotation)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise ValueError(
            f"{reader.name}: {len(problems)} of {len(reader.units)} annotations in {str(reader.root)!r} cannot be "
            f"read:\n  {told(problems, chr(10) + '  ')}\nRepair them, or leave their sequences out (exclude)."
        )
    if not names:
        raise ValueError(f"{reader.name}: there is no sequence in {str(reader.root)!r}")
    lengths = [len(annotation.valid) for annotation in read]
    return Index(
        np.array(names),
        np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
        np.concatenate([annotation.boxes for annotation in read]).astype(np.float32),
        np.concatenate([annotation.valid for annotation in read]),
    )


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _state(reader: Reader) -> str:
    """Changes with the sizes and times of the data set's annotations, and with `VERSION`."""
    facts = [VERSION]
    for unit in reader.units:
        for path in reader.files(unit):
            try:
                stat = path.stat()
            except OSError:
                facts.append(f"{path} is missing")
            else:
                facts.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return _digest(*facts)


def _stored(path: Path, state: str) -> Index | None:
    """The index in a cache's file; None, with a note, if it is damaged or out of date."""
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
    """Written aside, then renamed. A folder that cannot be written to costs the next start, not this one."""
    aside = path.with_name(f".{path.stem}.{os.getpid()}.part.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(aside, state=np.array(state), **index._asdict())
        os.replace(aside, path)
    except OSError as error:
        logger.warning("what was read of the data set cannot be kept in %s: %s", path, error)
    finally:
        with suppress(OSError):
            aside.unlink()
