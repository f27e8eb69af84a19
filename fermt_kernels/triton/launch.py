"""The one way that kernels are launched, and the sizes that they are launched with, as data.

Nothing is tuned at run time: a table costs no first-call time and gives the same bits on every machine of a class.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "") == "1"  # Triton's own switch, read when kernels are decorated


class Tuning(NamedTuple):
    """What a kernel is compiled for besides its shapes: warps a program, and pipeline stages of its loops."""

    num_warps: int
    num_stages: int = 1


class Launch(NamedTuple):
    """A launch as it would have run."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]  # tensors and numbers by the kernel's parameter names
    constants: dict[str, Any]  # its constexpr parameters
    tuning: Tuning


_recorder: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Collects launches instead of running them: what ahead-of-time compilation compiles, and what plans count."""
    global _recorder
    before, _recorder = _recorder, []
    try:
        yield _recorder
    finally:
        _recorder = before


def launch(
    kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], constants: dict[str, Any], tuning: Tuning
) -> None:
    """Runs `kernel` on `grid`, on the device of its first tensor; an empty grid runs nothing."""
    if 0 in grid:
        return
    if _recorder is not None:
        _recorder.append(Launch(kernel, grid, arguments, constants, tuning))
        return
    first = next(value for value in arguments.values() if isinstance(value, Tensor))
    options = {} if INTERPRETED else tuning._asdict()
    if first.device.type == "cuda":
        with torch.cuda.device(first.device):
            kernel[grid](**arguments, **constants, **options)
    else:
        kernel[grid](**arguments, **constants, **options)


def dot_precision(dtype: torch.dtype) -> str:
    """How `tl.dot` multiplies: float32 in full, or in TF32 where `torch.set_float32_matmul_precision` allows it."""
    allowed = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return "tf32" if allowed and not INTERPRETED else "ieee"
