"""The check that no output of a command takes the place of one of its inputs."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path

Places = Mapping[str, str | os.PathLike[str] | None]  # by option; None: not given


def check_overwrites(outputs: Places, inputs: Places) -> None:
    """Raises ValueError if a file to be written is one that is read, or another one that is written.

    Two names are of one file also through links, and where a file system takes capitals for small letters. An input may
    be a folder or a pattern of file names: then no output may replace a file in it or one that matches, or be the
    folder itself.

    Args:
        outputs: files, and folders of files, to write, by option.
        inputs: files, folders and patterns to read, by option.
    """
    written = {option: Path(path) for option, path in outputs.items() if path is not None}
    for option, path in written.items():
        for other, place in inputs.items():
            if place is not None and (found := _replaced(path, place)):
                raise ValueError(
                    f"{option} {str(path)!r} would replace an input, {found} of {other}: give another {option}"
                )
        for other, second in written.items():
            if other != option and _same(path, second):
                raise ValueError(f"{option} and {other} are one file, {str(path)!r}: give each its own")


def _replaced(path: Path, place: str | os.PathLike[str]) -> str:
    """The input that a file to be written would replace; empty if none."""
    name = os.fspath(place)
    if Path(name).is_dir():
        if path.is_dir() and _same(path, Path(name)):
            return repr(name)
        inside = path.exists() and not path.is_dir() and Path(name).resolve() in path.resolve().parents
        return repr(os.fspath(path.resolve())) if inside else ""
    matching = glob.glob(name, recursive=True) if glob.has_magic(name) and not Path(name).exists() else [name]
    return next((repr(match) for match in matching if _same(path, Path(match))), "")


def _same(a: Path, b: Path) -> bool:
    if a.exists() and b.exists():
        return os.path.samefile(a, b)
    return os.path.normcase(os.path.realpath(a)) == os.path.normcase(os.path.realpath(b))
