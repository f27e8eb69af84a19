"""The check that no output of a command takes the place of one of its inputs."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from .marks import is_marked


class Files(NamedTuple):
    """An input that may be a file, or many: a folder, or a pattern of file names."""

    place: str | os.PathLike[str]
    suffixes: Collection[str] = ()  # lower-case suffixes of the files in the folder that may be read; empty: any file
    all_read: bool = False  # whether every such file is read, so that a new one would become an input


Place = str | os.PathLike[str] | None  # None: not given


def check_overwrites(outputs: Mapping[str, Place], inputs: Mapping[str, Place | Files]) -> None:
    """Raises ValueError if a file to be written is one that is read, or another one that is written.

    Two names may be of one file through links, or on a file system that ignores case. An output may lie in a folder
    that is read, and the next run may replace it, unless its suffix is one of the inputs'. Pictures that a command
    wrote have a mark (`fermt.marks`) and are not inputs.

    Args:
        outputs: files and folders to write, by option.
        inputs: files and folders that are read, by option.
    """
    written = {option: Path(path) for option, path in outputs.items() if path is not None}
    read = {option: one if isinstance(one, Files) else Files(one) for option, one in inputs.items() if one is not None}
    for option, path in written.items():
        for other, files in read.items():
            if harm := _harm(path, files):
                raise ValueError(f"{option} {str(path)!r} would {harm} of {other}: give another {option}")
        for other, second in written.items():
            if other != option and _same(path, second):
                raise ValueError(f"{option} and {other} are one file, {str(path)!r}: give each its own")


def _harm(path: Path, files: Files) -> str:
    """What writing a file or folder would do to an input; empty if nothing."""
    place = Path(files.place)
    path = Path(os.path.realpath(path)) if path.is_symlink() else path  # whose suffix is another one
    if _same(path, place):
        return f"replace an input, {str(place)!r}"
    if path.is_dir() or (files.suffixes and path.suffix.lower() not in files.suffixes):
        return ""
    if files.all_read and not path.exists():
        return "become an input, one of the images" if _is_one_of(path, place) else ""
    harmed = _is_one_of(path, place) if files.all_read else _is_below(path, place) and not is_marked(path)
    return f"replace an input, {str(path.resolve())!r}" if harmed else ""


def _is_below(path: Path, folder: Path) -> bool:
    """Whether there is such a file, and it lies in a folder or below it."""
    return path.exists() and folder.is_dir() and folder.resolve() in path.resolve().parents


def _is_one_of(path: Path, place: Path) -> bool:
    """Whether a file, which need not exist yet, lies in a folder, or matches a pattern."""
    if place.is_dir():
        return place.resolve() in (path.parent.resolve(), path.resolve().parent)
    name = os.fspath(place)
    if place.exists() or not glob.has_magic(name):
        return False
    folder, pattern = os.path.split(name)
    if any(_same(path, Path(match)) for match in glob.glob(name, recursive=True)):
        return True
    folders = glob.glob(folder or os.curdir, recursive=True)
    return fnmatch(path.name, pattern) and any(_same(path.parent, Path(one)) for one in folders)


def _same(a: Path, b: Path) -> bool:
    if a.exists() and b.exists():
        return os.path.samefile(a, b)
    return os.path.normcase(os.path.realpath(a)) == os.path.normcase(os.path.realpath(b))
