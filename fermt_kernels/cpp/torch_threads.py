"""PyTorch's thread pool for the compiled library: its C function `torch_parallel_for`, exported by torch >= 2.10."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch

from .. import torch_private

LIBRARIES = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}  # libtorch_cpu.so elsewhere
FUNCTION = "torch_parallel_for"


def parallel_for() -> int:
    """The address of `torch_parallel_for`, on which the library's loops run.

    It is looked up in torch's library, and where that is not in its usual place, through torch's extension module.

    Raises:
        RuntimeError: this torch does not export it; the message says what was tried.
    """
    usual = Path(torch.__file__).parent / "lib" / LIBRARIES.get(sys.platform, "libtorch_cpu.so")
    failures = []
    for path in (usual, torch_private.extension_path()):
        try:
            function = getattr(ctypes.CDLL(str(path)), FUNCTION)
        except (OSError, AttributeError) as error:
            failures.append(str(error))
        else:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise RuntimeError(
        f"torch {torch.__version__} does not export {FUNCTION}, which torch >= 2.10 does: {'; '.join(failures)}"
    )
