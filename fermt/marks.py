"""The mark of pictures that a command wrote, which distinguishes them from the pictures of a data set."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SOFTWARE = "fermt"  # the value of the PNG keyword "Software"
_TEXT = b"tEXtSoftware\0" + SOFTWARE.encode()
_HEADER = 8 + 25  # bytes of the signature and of the chunk IHDR, which comes first
_SEARCHED = 1024  # bytes in which the mark is


def marked(png: bytes) -> bytes:
    """A PNG file with the mark."""
    chunk = struct.pack(">I", len(_TEXT) - 4) + _TEXT + struct.pack(">I", zlib.crc32(_TEXT))
    return png[:_HEADER] + chunk + png[_HEADER:]


def is_marked(path: Path) -> bool:
    """Whether a file has the mark."""
    with path.open("rb") as file:
        return _TEXT in file.read(_SEARCHED)
