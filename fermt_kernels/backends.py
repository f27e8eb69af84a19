"""The table of backends, and the choice of one for an op.

Each backend is a package (`reference`, `cpp`, `triton`) with one function for each of its ops and these names:

- `unavailable_reason()`: why it cannot run on this machine, or None;
- `describe()`: what it runs on;
- `DEVICES`: device types whose tensors it takes, or None for any;
- `SUPPORTS`: op -> dtypes;
- `LARGEST`: op -> the size that is limited, in words, and its largest value;
- `slower_than_pytorch()`: ops that PyTorch's own kernels run faster on this machine.

Only this module asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, TypeVar

import torch

from . import cpp, reference, triton

AUTO = "auto"
BACKEND_VARIABLE = "FERMT_BACKEND"
BACKENDS: dict[str, ModuleType] = {
    "triton": triton,
    "cpp": cpp,
    "reference": reference,
}  # in order of preference
NAMES = (AUTO, *BACKENDS)


Function = TypeVar("Function", bound=Callable)


def _constant_when_traced(function: Function) -> Function:
    """What torch.compiler.assume_constant_result does, which imports all of torch._dynamo: a second at every start."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class BackendStatus(NamedTuple):
    """One row of `backends()`."""

    name: str
    usable: bool
    detail: str  # what it runs on; or, where it is not usable, why not and what to do about it


class BackendTable(tuple[BackendStatus, ...]):
    """The rows of `backends()`; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        lines = [f"{'backend':<10} {'usable':<7} detail"]
        lines += [f"{row.name:<10} {'yes' if row.usable else 'no':<7} {row.detail}" for row in self]
        return "\n".join(lines)


def backends() -> BackendTable:
    """The backends in order of preference: name, whether usable here, and if not, why and what to do about it."""
    rows = []
    for name, backend in BACKENDS.items():
        reason = backend.unavailable_reason()
        rows.append(BackendStatus(name, reason is None, backend.describe() if reason is None else reason))
    return BackendTable(rows)


def unsupported_reason(name: str, op: str, device_type: str, dtype: torch.dtype, size: int = 0) -> str | None:
    """Why backend `name` cannot run `op` on such input, or None if it can; `size` is the head dim, or the channels."""
    backend = BACKENDS[name]
    if reason := backend.unavailable_reason():
        return reason
    if backend.DEVICES is not None and device_type not in backend.DEVICES:
        return f"it runs on {', '.join(backend.DEVICES)} tensors, not {device_type}"
    if op not in backend.SUPPORTS:
        return f"it has no {op}"
    if dtype not in backend.SUPPORTS[op]:
        return f"its {op} takes {', '.join(map(str, backend.SUPPORTS[op]))}, not {dtype}"
    what, largest = backend.LARGEST.get(op, ("", size))
    return f"its {op} takes {what} up to {largest}, not {size}" if size > largest else None


def requested(backend: str) -> str:
    """The backend asked for: `backend` itself, or the default that the environment names where it is "auto"."""
    name = os.environ.get(BACKEND_VARIABLE, AUTO) if backend == AUTO else backend
    if name not in NAMES:
        origin = f"{BACKEND_VARIABLE}=" if backend == AUTO else "backend "
        raise ValueError(f"unknown {origin}{name!r}; expected one of {', '.join(NAMES)}")
    return name


@_constant_when_traced
def _limits(op: str) -> tuple[int, ...]:
    return tuple(sorted({backend.LARGEST[op][1] for backend in BACKENDS.values() if op in backend.LARGEST}))


def constant_size(op: str, size: int) -> int:
    """`size`; where it is traced with shapes left open, a constant that the same backends take."""
    if not torch.compiler.is_compiling():
        return size
    constant = 0
    for limit in _limits(f"{op}_forward"):
        if size > limit:
            constant = limit + 1
    return constant


@_constant_when_traced
def resolve(op: str, backend: str, device_type: str, dtype: torch.dtype, with_backward: bool, size: int = 0) -> str:
    """Name of the backend that runs `op` ("attention", say) on inputs of `size` (head dim, or channels).

    It is a constant of the compiled graph.

    "auto" takes the first row that can and that is not slower than PyTorch's own, and ends at the reference. An
    explicit name never falls back: it raises RuntimeError with the reason, also where the gradient will be needed and
    only the forward pass is there.
    """
    name = requested(backend)
    if name == AUTO:
        return next(
            row
            for row, backend in BACKENDS.items()
            if unsupported_reason(row, f"{op}_forward", device_type, dtype, size) is None
            and op not in backend.slower_than_pytorch()
        )
    for needed in (f"{op}_forward", f"{op}_backward") if with_backward else (f"{op}_forward",):
        if reason := unsupported_reason(name, needed, device_type, dtype, size):
            raise RuntimeError(f"backend {name!r} cannot run {needed}: {reason}")
    return name


def resolve_backward(op: str, forward_name: str, device_type: str, dtype: torch.dtype) -> str:
    """The backend of the gradient: the forward's own if it has one, else (under "auto" only) the first that does."""
    if unsupported_reason(forward_name, f"{op}_backward", device_type, dtype) is None:
        return forward_name
    return next(row for row in BACKENDS if unsupported_reason(row, f"{op}_backward", device_type, dtype) is None)
