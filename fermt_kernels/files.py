"""Atomic file writes: a file is written under a temporary name in its folder, then renamed.

A reader sees the old file or the new one, never a part of it, and an error or a killed process leaves the old one. The
temporary file of a killed process is deleted by the next one that writes the same file: writers hold a lock on theirs,
which ends with them.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MARK = ".tmp"  # in the name of a temporary file, before its suffix


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, keep_suffix: bool = False) -> Iterator[Path]:
    """Gives the path of a new, empty file, which is renamed to `path` when the context ends without an error.

    The file lies in the same folder under a unique name. It has the mode of the file that it replaces, or else that of
    the umask, and is synchronized to disk before it is renamed; after an error it is deleted. What killed processes
    have left of earlier writes to files of the same stem is deleted first.

    The caller opens the file and writes to it. It puts no other file in its place, which would have no lock and pass
    for the leftover of a killed process.

    Args:
        path: the file to write or replace.
        keep_suffix: whether the temporary path has the suffix of `path`, for writers that depend on it. Without it, the
            leftover of a killed process matches no pattern such as *.txt.

    Raises:
        OSError: `path` is a folder, or its folder cannot be written to, which is found out first; or the file is gone
            or replaced, or cannot be synchronized or renamed.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    delete_leftovers(target.parent, glob.escape(target.stem))
    temporary, file = _create(target, f"{MARK}{target.suffix if keep_suffix else ''}")
    try:
        mode = _mode(target, file)
        yield temporary
        written = os.fstat(file.fileno())
        if not os.path.samestat(written, temporary.stat()):
            raise OSError(f"the temporary file of {os.fspath(path)!r} was replaced while it was written")
        if stat.S_IMODE(written.st_mode) != mode:  # some writers have a mode of their own
            os.chmod(temporary, mode)
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()  # Windows renames no open file
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        file.close()


def _create(target: Path, ending: str) -> tuple[Path, BinaryIO]:
    """Creates a temporary file beside `target`, and locks it."""
    while True:
        temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{ending}")
        with named(target):
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        file = os.fdopen(descriptor, "r+b")
        # Before it is locked, another process may take it for a leftover and delete it.
        if _lock(file) is not False and temporary.exists():
            return temporary, file
        file.close()


def _lock(file: BinaryIO) -> bool | None:
    """Locks a file until it is closed, or its process ends; False if another process has the lock, None without locks.

    Some network file systems have none.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _mode(target: Path, file: BinaryIO) -> int:
    """The mode of a file, or that of the new one, which follows the umask or the folder's access list."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


def atomic_write(path: str | os.PathLike[str], content: str | bytes | memoryview | Callable[[Path], object]) -> None:
    """Writes a file atomically.

    Args:
        path: the file to write or replace.
        content: text, written as UTF-8 with the line ends that it has; bytes; or a function that writes to the file at
            the path it is given, which has the suffix of `path`.

    Raises:
        OSError: the file, which is named, cannot be written; also whatever `content` raises.
    """
    with named(path), atomic_path(path, keep_suffix=callable(content)) as temporary:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Gives errors of the system the name of a file, where they have none or that of a temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else it has a text of its own
            error.filename = os.fspath(path)
        raise


def delete_leftovers(folder: Path, stem: str = "*") -> None:
    """Deletes what killed processes have left in a folder of files whose stem matches a glob.

    A temporary file that a process still writes to stays, as do all where the file system has no locks.
    """
    for path in folder.glob(f".{stem}.????????{MARK}*"):
        with suppress(OSError), path.open("r+b") as file:  # another's file, or one that was just renamed
            if _lock(file):
                path.unlink()
