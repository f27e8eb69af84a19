"""Paths of the C header and the compiled library, for programs that track without Python."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..cpp import library

HEADER = "fermt.h"  # csrc/abi/fermt.h, which the build copies beside the library


class Native(NamedTuple):
    """Paths for building a C or C++ program."""

    include_dir: Path  # holds fermt.h
    library: Path


def native() -> Native:
    """Returns the folder of `fermt.h` and the path of the library, for a compiler's command line.

    Raises:
        RuntimeError: the compiled library is not usable, or the header is not installed; the message says why.
    """
    library.load()
    path = library.path()
    if not path.with_name(HEADER).exists():
        raise RuntimeError(f"{HEADER} is missing beside {path}; {library.HOW_TO_GET_IT}")
    return Native(path.parent, path)
