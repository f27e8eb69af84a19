"""The table of backends, and the choice of one for an op.

Each backend is a package (`reference`, `cpp`, `triton`) with one function for each of its ops and these names:

- `unavailable_reason()`: why it cannot run on this machine, or None; ValueError if an environment variable is wrong;
- `describe()`: what it runs on;
- `DEVICES`: device types whose tensors it takes, or None for any;
- `SUPPORTS`: op -> dtypes;
- `LARGEST`: op -> the size that is limited, in words, and its largest value;
- `slower_than_pytorch()`: ops that PyTorch's own kernels run faster on this machine.

Only this module uses these names.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import NamedTuple

import torch

from . import cpp, reference, triton
from .torch_private import constant_when_traced

AUTO = "auto"
BACKEND_VARIABLE = "FERMT_BACKEND"
# In order of preference.
BACKENDS: dict[str, ModuleType] = {"triton": triton, "cpp": cpp, "reference": reference}
NAMES = (AUTO, *BACKENDS)


class BackendStatus(NamedTuple):
    """The state of one backend: a row of `backends()`."""

    name: str
    usable: bool
    detail: str  # what it runs on; or why it is not usable, and what to do about it


class BackendTable(tuple[BackendStatus, ...]):
    """The result of `backends()`: a tuple of `BackendStatus` that prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        lines = [f"{'backend':<10} {'usable':<7} detail"]
        lines += [f"{row.name:<10} {'yes' if row.usable else 'no':<7} {row.detail}" for row in self]
        return "\n".join(lines)


def backends() -> BackendTable:
    """Lists the backends in order of preference: name, whether usable on this machine, and if not, the reason."""
    rows = []
    for name, backend in BACKENDS.items():
        try:
            reason = backend.unavailable_reason()
        except ValueError as error:  # an environment variable has a wrong value: a reason, too
            reason = str(error)
        rows.append(BackendStatus(name, reason is None, backend.describe() if reason is None else reason))
    return BackendTable(rows)


def unsupported_reason(name: str, op: str, device_type: str, dtype: torch.dtype, size: int = 0) -> str | None:
    """The reason why a backend cannot run an op on such input, or None if it can.

    Args:
        name: a key of `BACKENDS`.
        op: a key of the backend's `SUPPORTS`, such as "attention_forward".
        device_type: of the input, such as "cuda".
        dtype: of the computation.
        size: the head dim of attention, or the channels of the Dual Attention Unit.
    """
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
    """The requested backend: `backend` itself, or for "auto" the value of FERMT_BACKEND if it is set.

    Raises:
        ValueError: there is no such backend.
    """
    name = (os.environ.get(BACKEND_VARIABLE) or AUTO) if backend == AUTO else backend
    if name not in NAMES:
        origin = f"{BACKEND_VARIABLE}=" if backend == AUTO else "backend "
        raise ValueError(f"unknown {origin}{name!r}; expected one of {', '.join(NAMES)}")
    return name


@constant_when_traced
def _limits(op: str) -> tuple[int, ...]:
    return tuple(sorted({backend.LARGEST[op][1] for backend in BACKENDS.values() if op in backend.LARGEST}))


def constant_size(op: str, size: int) -> int:
    """The size or, while `torch.compile` traces with dynamic shapes, a constant that the same backends support."""
    if not torch.compiler.is_compiling():
        return size
    constant = 0
    for limit in _limits(f"{op}_forward"):
        if size > limit:
            constant = limit + 1
    return constant


@constant_when_traced
def resolve(op: str, backend: str, device_type: str, dtype: torch.dtype, with_backward: bool, size: int = 0) -> str:
    """Chooses the backend that runs an op. The name is a constant of a compiled graph.

    "auto" takes the first backend that supports the input and is not slower than PyTorch's own kernels, and at last
    the reference. An explicit name never falls back.

    Args:
        op: name without `_forward`, such as "attention".
        backend: "auto" or a key of `BACKENDS`.
        device_type, dtype, size: as in `unsupported_reason`.
        with_backward: whether the gradient will be needed.

    Raises:
        RuntimeError: the named backend cannot run the op, or not its gradient; the message has the reason.
        ValueError: a variable (FERMT_BACKEND, FERMT_ISA) has a value that means nothing here.
    """
    name = requested(backend)
    if name == AUTO:
        return next(
            row
            for row, backend in BACKENDS.items()
            if unsupported_reason(row, f"{op}_forward", device_type, dtype, size) is None
            and op not in backend.slower_than_pytorch()
        )
    for function in (f"{op}_forward", f"{op}_backward") if with_backward else (f"{op}_forward",):
        if reason := unsupported_reason(name, function, device_type, dtype, size):
            raise RuntimeError(f"backend {name!r} cannot run {function}: {reason}")
    return name


def resolve_backward(op: str, forward_name: str, device_type: str, dtype: torch.dtype) -> str:
    """Chooses the backend of an op's gradient: the forward's own or, if it has none, the first that supports it."""
    if unsupported_reason(forward_name, f"{op}_backward", device_type, dtype) is None:
        return forward_name
    return next(row for row in BACKENDS if unsupported_reason(row, f"{op}_backward", device_type, dtype) is None)
