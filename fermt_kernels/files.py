"""Writing files so that they are whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

Buffer = bytes | bytearray | memoryview


def atomic_write(path: str | os.PathLike[str], data: Buffer | Callable[[IO[bytes]], object]) -> None:
    """Writes a file under a temporary name in the same folder, syncs it to disk, and renames it to `path`.

    Other processes see the old file or the whole new one. On failure the temporary file is removed and `path` is as it
    was. The file's mode follows the umask, as that of `open` does.

    Args:
        path: the file; its folder must exist. A symbolic link is followed.
        data: the file's bytes, or a function that writes them to the open file.

    Raises:
        OSError: the file cannot be written; what else `data` raises passes through.
    """
    target = Path(os.path.realpath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
