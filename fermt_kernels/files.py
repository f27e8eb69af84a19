"""Atomic file writes: a file is written under a temporary name in its folder, then renamed.

A reader sees the old file or the new one, never a part of it, and an error or a killed process leaves the old one.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = ".tmp"  # in the name of a temporary file, before its suffix


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, keep_suffix: bool = False) -> Iterator[Path]:
    """Gives a temporary path to write to, which is renamed to `path` when the context ends without an error.

    The temporary path is unique and lies in the same folder. Its file, which the caller creates, gets the mode of the
    file that it replaces, or else that of the umask, and is synchronized to disk before it is renamed; after an error
    it is deleted.

    Args:
        path: the file to write or replace.
        keep_suffix: whether the temporary path has the suffix of `path`, for writers that depend on it. Without it, the
            leftover of a killed process matches no pattern such as *.txt.

    Raises:
        OSError: the folder cannot be written to, which is found out first; or the file was not created, or cannot be
            synchronized or renamed.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{MARK}{target.suffix if keep_suffix else ''}")
    try:
        mode = _mode(target, temporary)
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:  # some writers have a mode of their own
                os.chmod(temporary, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _mode(target: Path, temporary: Path) -> int:
    """The mode of a file, or that of a new one in its folder, by the umask or the folder's access list."""
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        new = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        temporary.unlink()
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        return new


def atomic_write(path: str | os.PathLike[str], content: str | bytes | memoryview | Callable[[Path], object]) -> None:
    """Writes a file atomically.

    Args:
        path: the file to write or replace.
        content: text, written as UTF-8 with the line ends that it has; bytes; or a function that writes a file to the
            path it is given, which has the suffix of `path`.

    Raises:
        OSError: the file cannot be written; also whatever `content` raises.
    """
    with atomic_path(path, keep_suffix=callable(content)) as temporary:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def delete_leftovers(folder: Path, stem: str = "*") -> None:
    """Deletes the temporary files of killed processes in a folder: those for files whose stem matches a glob."""
    for path in folder.glob(f".{stem}.????????{MARK}*"):
        path.unlink(missing_ok=True)
