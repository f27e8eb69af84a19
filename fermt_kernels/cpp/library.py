"""Finds the compiled library, checks its version, chooses the instruction set, and lends it torch's threads."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

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
    """The loaded library."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self._handle = handle
        handle.fermt_status_text.restype = ctypes.c_char_p
        handle.fermt_isa_name.restype = ctypes.c_char_p
        handle.fermt_isa_selected.restype = ctypes.c_char_p
        self.parallel_for = _torch_parallel_for()
        self._kernels = {name: (getattr(handle, name), layout) for name, layout in LAYOUTS.items()}
        for function, _ in self._kernels.values():
            function.argtypes = [ctypes.c_void_p]

    @property
    def isa(self) -> str:
        """Name of the instruction set whose kernels are called."""
        return self._handle.fermt_isa_selected().decode()

    def isas(self) -> dict[str, bool]:
        """Every instruction set in the library, in order of preference, and whether this CPU has it."""
        rows: dict[str, bool] = {}
        while name := self._handle.fermt_isa_name(len(rows)):
            rows[name.decode()] = bool(self._handle.fermt_isa_supported(len(rows)))
        return rows

    def select_isa(self, name: str) -> None:
        """Calls the kernels of instruction set `name` from now on; ValueError if there are none for this CPU."""
        if self._handle.fermt_isa_select(name.encode()) != 0:
            usable = ", ".join(isa for isa, supported in self.isas().items() if supported)
            state = "not supported by this CPU" if name in self.isas() else "unknown"
            raise ValueError(f"instruction set {name!r} is {state}; expected one of {usable}")

    def call(self, name: str, *fields: float) -> None:
        """Runs a kernel on the fields of its struct, less the first two, which are the same for all.

        Raises:
            RuntimeError: the library refused the call; the message says why.
        """
        function, layout = self._kernels[name]
        self._check(name, function(layout.pack(layout.size, self.parallel_for, *fields)))

    def query(self, name: str, *fields: float) -> tuple[Any, ...]:
        """Runs a function that answers in its struct, on all fields but the first; what those are afterwards.

        Raises:
            RuntimeError: as `call`.
        """
        function, layout = self._kernels[name]
        asked = ctypes.create_string_buffer(layout.pack(layout.size, *fields), layout.size)
        self._check(name, function(asked))
        return layout.unpack(asked)[1:]

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
    from .. import __version__

    for distribution in importlib.metadata.distributions(name=DISTRIBUTION):
        candidate = Path(str(distribution.locate_file("fermt_kernels/cpp"))) / PATH.name
        if distribution.version == __version__ and candidate.exists():
            return candidate
    return None


@cache
def _open() -> Library | str:
    """The library, or why there is none."""
    found = path()
    if not found.exists():
        return f"the compiled library is not installed ({PATH} is missing); {HOW_TO_GET_IT}"
    try:
        handle = ctypes.CDLL(str(found))
        version = handle.fermt_abi_version()
    except (OSError, AttributeError) as error:
        return f"{found.name} cannot be loaded ({error}); {HOW_TO_GET_IT}"
    if version != ABI_VERSION:
        return f"{found} is of version {version}, this package needs {ABI_VERSION}; {HOW_TO_GET_IT}"
    library = Library(handle)
    if forced := os.environ.get(ISA_VARIABLE):
        try:
            library.select_isa(forced)
        except ValueError as error:
            return f"{ISA_VARIABLE}={forced}: {error}"
    return library


def why_not() -> str | None:
    opened = _open()
    return opened if isinstance(opened, str) else None


def load() -> Library:
    """The library; RuntimeError with the reason where there is none."""
    opened = _open()
    if isinstance(opened, str):
        raise RuntimeError(opened)
    return opened


def supported_isas() -> list[str]:
    return [name for name, supported in load().isas().items() if supported]


def _torch_parallel_for() -> int:
    """Address of torch's C function `torch_parallel_for` (torch >= 2.10): our loops run on torch's own threads."""
    names = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}
    path = Path(torch.__file__).parent / "lib" / names.get(sys.platform, "libtorch_cpu.so")
    return ctypes.cast(ctypes.CDLL(str(path)).torch_parallel_for, ctypes.c_void_p).value or 0
