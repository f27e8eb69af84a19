"""Loading and calling the compiled library, on torch's threads and the chosen instruction set."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ..version import VERSION
from . import torch_threads
from .abi import LAYOUTS

ABI_VERSION = 3
ISA_VARIABLE = "FERMT_ISA"
PATH = Path(__file__).with_name("libfermt_kernels" + (".dylib" if sys.platform == "darwin" else ".so"))
DISTRIBUTION = "fermt-kernels"
_BUILDER = Path(__file__).parents[2] / "csrc" / "build_library.py"  # in a checkout
HOW_TO_GET_IT = (
    f"build it (needs g++ or clang++, and ninja): {sys.executable} {_BUILDER}"
    if _BUILDER.exists()
    else "reinstall with a C++ compiler at hand (g++ or clang++): pip install --force-reinstall --no-deps ."
)


class Library:
    """The loaded library.

    Args:
        handle: the shared library.
        parallel_for: address of a `fermt_parallel_for`, or 0 to run on the calling thread.

    Raises:
        AttributeError: a function is missing from the library.
    """

    def __init__(self, handle: ctypes.CDLL, parallel_for: int) -> None:
        self._handle = handle
        handle.fermt_status_text.restype = ctypes.c_char_p
        handle.fermt_isa_name.restype = ctypes.c_char_p
        handle.fermt_isa_selected.restype = ctypes.c_char_p
        self.parallel_for = parallel_for
        self._kernels = {name: (getattr(handle, name), layout) for name, layout in LAYOUTS.items()}
        for function, _ in self._kernels.values():
            function.argtypes = [ctypes.c_void_p]

    @property
    def isa(self) -> str:
        """Name of the instruction set in use."""
        return self._handle.fermt_isa_selected().decode()

    def isas(self) -> dict[str, bool]:
        """Instruction sets of the library, in order of preference, and whether this CPU supports each."""
        rows: dict[str, bool] = {}
        while name := self._handle.fermt_isa_name(len(rows)):
            rows[name.decode()] = bool(self._handle.fermt_isa_supported(len(rows)))
        return rows

    def select_isa(self, name: str) -> None:
        """Uses the kernels of instruction set `name` from now on.

        Raises:
            ValueError: the library has no such kernels, or this CPU cannot run them.
        """
        if self._handle.fermt_isa_select(name.encode()) != 0:
            usable = ", ".join(isa for isa, supported in self.isas().items() if supported)
            state = "not supported by this CPU" if name in self.isas() else "unknown"
            raise ValueError(f"instruction set {name!r} is {state}; expected one of {usable}")

    def trace_loops(self, trace: Any) -> None:
        """Calls `trace`, a C function, after each piece of a frame's loops from now on; None ends that."""
        self._handle.fermt_trace_loops(trace)

    def use_calling_thread(self) -> None:
        """Runs all loops on the calling thread from now on: a forked child has none of the pool's threads."""
        self.parallel_for = 0

    def call(self, name: str, **fields: Any) -> None:
        """Calls a kernel with a struct of these fields; `struct_size` and `parallel_for` are added.

        Raises:
            TypeError: a field is missing or unknown.
            RuntimeError: the library refused the call; the message says why.
        """
        function, layout = self._kernels[name]
        fields["parallel_for"] = self.parallel_for
        self._check(name, function(layout.pack(fields)))

    def query(self, name: str, **fields: Any) -> dict[str, Any]:
        """Calls a function that fills in its struct, and returns all of the struct's fields.

        Fields that are not given are 0 in the call.

        Raises:
            TypeError: a field is unknown.
            RuntimeError: the library refused the call; the message says why.
        """
        function, layout = self._kernels[name]
        buffer = ctypes.create_string_buffer(layout.pack(layout.zeros() | fields), layout.size)
        self._check(name, function(buffer))
        return layout.unpack(buffer)

    def _check(self, name: str, status: int) -> None:
        if status:
            raise RuntimeError(f"{name}: {self._handle.fermt_status_text(status).decode()} (status {status})")


def path() -> Path:
    """Where the library is: beside this file or, for a checkout without one, in the installed package."""
    return PATH if PATH.exists() else _installed() or PATH


def _installed() -> Path | None:
    """The library of the installed package, if it is of the same version as these sources.

    Python run in a checkout takes the checkout's sources, which have no library after a plain `pip install .`.
    """
    for distribution in importlib.metadata.distributions(name=DISTRIBUTION):
        candidate = Path(str(distribution.locate_file("fermt_kernels/cpp"))) / PATH.name
        is_here = candidate.parent.resolve() == Path(__file__).resolve().parent  # by a checkout's own egg-info
        if distribution.version == VERSION and candidate.exists() and not is_here:
            return candidate
    return None


@cache
def _open() -> Library | str:
    """The library, or the reason why it cannot be used.

    Raises:
        ValueError: FERMT_ISA names no instruction set that can be used here.
    """
    found = path()
    if not found.exists():
        return f"the compiled library is not installed ({found} is missing); {HOW_TO_GET_IT}"
    try:
        handle = ctypes.CDLL(str(found))
        version = handle.fermt_abi_version()
    except (OSError, AttributeError) as error:
        return f"{found.name} cannot be loaded ({error}); {HOW_TO_GET_IT}"
    if version != ABI_VERSION:
        return f"{found} is of version {version}, this package needs {ABI_VERSION}; {HOW_TO_GET_IT}"
    try:
        library = Library(handle, torch_threads.parallel_for())
    except AttributeError as error:
        return f"{found.name} is not this package's library ({error}); {HOW_TO_GET_IT}"
    except RuntimeError as error:
        return str(error)
    if forced := os.environ.get(ISA_VARIABLE):
        try:
            library.select_isa(forced)
        except ValueError as error:
            raise ValueError(f"{ISA_VARIABLE}={forced}: {error}") from error
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=library.use_calling_thread)
    return library


def unavailable_reason() -> str | None:
    """The reason why the library cannot be used, or None if it can.

    Raises:
        ValueError: FERMT_ISA names no instruction set that can be used here: another backend would not be what was
            asked for.
    """
    opened = _open()
    return opened if isinstance(opened, str) else None


def load() -> Library:
    """The library.

    Raises:
        RuntimeError: it cannot be used; the message says why.
        ValueError: FERMT_ISA names no instruction set that can be used here.
    """
    opened = _open()
    if isinstance(opened, str):
        raise RuntimeError(opened)
    return opened


def supported_isas() -> list[str]:
    """Names of the library's instruction sets that this CPU supports, in order of preference."""
    return [name for name, supported in load().isas().items() if supported]
