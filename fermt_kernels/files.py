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

TEMPORARY_MARK = ".tmp"  # in the name of a temporary file, before its suffix
LONGEST_STEM = 200  # bytes of it in the name of a temporary file, which may have 255


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, keep_suffix: bool = False) -> Iterator[Path]:
    """Gives the path of a new, empty file, which is renamed to `path` when the context ends without an error.

    The file lies in the same folder under a unique name; where `path` is a link, it is the file behind it that is
    replaced. It has the mode and, if the system allows, the owner of the file that it replaces, or else the mode of the
    umask, and is synchronized to disk before it is renamed; after an error it is deleted. What killed processes have
    left of earlier writes to files of the same stem is deleted first.

    The caller opens the file and writes to it. It puts no other file in its place, which would have no lock and pass
    for the leftover of a killed process.

    Args:
        path: the file to write or replace.
        keep_suffix: whether the temporary path has the suffix of `path`, for writers that depend on it. Without it, the
            leftover of a killed process matches no pattern such as *.txt.

    Raises:
        OSError: `path` is a folder, a pipe or a device, or its folder cannot be written to, which is found out first;
            or the file is gone or replaced, or cannot be synchronized or renamed.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if target.exists() and not target.is_file():  # /dev/null, which root could replace
        raise OSError(f"expected the name of a file, got that of a pipe or device, {os.fspath(path)!r}")
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    delete_leftovers(target.parent, glob.escape(_short_stem(target)))
    temporary, file = _create(target, f"{TEMPORARY_MARK}{target.suffix if keep_suffix else ''}")
    try:
        mode = _mode(target, file)
        _keep_owner(target, file)
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
        temporary = target.with_name(f".{_short_stem(target)}.{secrets.token_hex(4)}{ending}")
        with named(target):
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        file = os.fdopen(descriptor, "r+b")
        # Before it is locked, another process may take it for a leftover and delete it.
        if _lock(file) is not False and temporary.exists():
            return temporary, file
        file.close()


def _short_stem(target: Path) -> str:
    stem = os.fsencode(target.stem)
    return target.stem if len(stem) <= LONGEST_STEM else stem[:LONGEST_STEM].decode(errors="ignore")


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


def _keep_owner(target: Path, file: BinaryIO) -> None:
    """Gives a file the owner and group of the one that it replaces, which the system may refuse."""
    with suppress(FileNotFoundError, PermissionError, AttributeError):  # Windows has no owners by number
        old, new = target.stat(), os.fstat(file.fileno())
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(file.fileno(), old.st_uid, old.st_gid)


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
    for path in folder.glob(f".{stem}.????????{TEMPORARY_MARK}*"):
        with suppress(OSError), path.open("r+b") as file:  # another's file, or one that was just renamed
            if _lock(file):
                path.unlink()
