"""The table of backends: which can run here, why the others cannot, and which one an op takes.

A room (`reference`, `cpp`, `triton`) says what it needs (`why_not()`), what it has (`SUPPORTS`: op -> dtypes), where
(`DEVICES`), up to what size (`LARGEST`: op -> what is meant, and the largest), which ops PyTorch does faster here
(`slower_than_pytorch()`), and holds one function for each op it has. Nothing else in the package asks about backends.
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
ROOMS: dict[str, ModuleType] = {
    "triton": triton,
    "cpp": cpp,
    "reference": reference,
}  # in order of preference
NAMES = (AUTO, *ROOMS)


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
    for name, room in ROOMS.items():
        reason = room.why_not()
        rows.append(BackendStatus(name, reason is None, room.describe() if reason is None else reason))
    return BackendTable(rows)


def why_unsupported(name: str, op: str, device_type: str, dtype: torch.dtype, size: int = 0) -> str | None:
    """Why backend `name` cannot run `op` on such input, or None if it can; `size` is the head dim, or the channels."""
    room = ROOMS[name]
    if reason := room.why_not():
        return reason
    if room.DEVICES is not None and device_type not in room.DEVICES:
        return f"it runs on {', '.join(room.DEVICES)} tensors, not {device_type}"
    if op not in room.SUPPORTS:
        return f"it has no {op}"
    if dtype not in room.SUPPORTS[op]:
        return f"its {op} takes {', '.join(map(str, room.SUPPORTS[op]))}, not {dtype}"
    what, largest = room.LARGEST.get(op, ("", size))
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
    return tuple(sorted({room.LARGEST[op][1] for room in ROOMS.values() if op in room.LARGEST}))


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
            for row, room in ROOMS.items()
            if why_unsupported(row, f"{op}_forward", device_type, dtype, size) is None
            and op not in room.slower_than_pytorch()
        )
    for needed in (f"{op}_forward", f"{op}_backward") if with_backward else (f"{op}_forward",):
        if reason := why_unsupported(name, needed, device_type, dtype, size):
            raise RuntimeError(f"backend {name!r} cannot run {needed}: {reason}")
    return name


def resolve_backward(op: str, forward_name: str, device_type: str, dtype: torch.dtype) -> str:
    """The backend of the gradient: the forward's own if it has one, else (under "auto" only) the first that does."""
    if why_unsupported(forward_name, f"{op}_backward", device_type, dtype) is None:
        return forward_name
    return next(row for row in ROOMS if why_unsupported(row, f"{op}_backward", device_type, dtype) is None)
