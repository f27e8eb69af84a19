"""A lock on the folder of a run, against a second run in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK_FILE = ".lock"
_held: set[TextIO] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder, which is created if needed, against other runs.

    The lock ends with the context, or with the process however it ends; its file is then deleted, or ignored.

    Raises:
        RuntimeError: another run, of this process or another, holds the lock.
        OSError: the folder cannot be written to, or its file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if isinstance(error, BlockingIOError):
                reason = f"another run is active in {str(folder)!r}: wait for it, or use another --out"
                raise RuntimeError(reason) from error
            raise
        if _is_at(file, path):
            break
        file.close()  # another run ended, and deleted the file between our two calls
    _held.add(file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(file)
        file.close()


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _close_in_child() -> None:
    """Closes a forked child's copies, so that a worker that outlives its parent does not hold the lock."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_in_child)
