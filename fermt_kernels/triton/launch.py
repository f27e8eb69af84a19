"""Launching Triton kernels, and recording launches instead of running them.

Block sizes come from tables; nothing is tuned at run time, so that the first call is not slower and results are the
same on every GPU of a kind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "") == "1"  # Triton's own switch, read when kernels are decorated


class Tuning(NamedTuple):
    """How a kernel is compiled and launched: warps of a program, pipeline stages of its loops, and if it is dependent.

    A dependent launch may begin before the last one on its stream has ended, and waits within the kernel (programmatic
    dependent launch, from compute capability 9.0 on); its kernel has a constexpr `DEPENDENT`.
    """

    num_warps: int
    num_stages: int = 1
    dependent: bool = False

    def options(self) -> dict[str, Any]:
        """Triton's options."""
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        return options | {"launch_pdl": True} if self.dependent else options


class Blocks(NamedTuple):
    """Block sizes of an attention kernel: m queries, n keys; and how it is compiled."""

    m: int
    n: int
    tuning: Tuning


class Tiles(NamedTuple):
    """Tile sizes of a kernel: m rows, n outputs, k inputs; and the number of programs that share a row's outputs."""

    m: int
    n: int
    k: int
    tuning: Tuning
    shares: int = 1


class Overlap(NamedTuple):
    """Whether the launches of a frame's layers are dependent."""

    dependent: bool


Choice = Blocks | Tiles | Overlap  # what an entry of a table may be
Sizes = TypeVar("Sizes", Blocks, Tiles, Overlap)


class Launch(NamedTuple):
    """A recorded launch."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]  # tensors and scalars by the kernel's parameter names
    constants: dict[str, Any]  # its constexpr parameters
    tuning: Tuning


_recorder: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Records launches instead of running them, for ahead-of-time compilation and for counting work."""
    global _recorder
    before, _recorder = _recorder, []
    try:
        yield _recorder
    finally:
        _recorder = before


def launch(
    kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], constants: dict[str, Any], tuning: Tuning
) -> None:
    """Launches `kernel` on `grid`, on the device of its first tensor; nothing for an empty grid.

    Raises:
        ValueError: the launch is dependent, but the kernel would not wait.
    """
    if tuning.dependent and not constants.get("DEPENDENT"):
        raise ValueError(f"a dependent launch needs a kernel that waits, with DEPENDENT; got {kernel} with {constants}")
    if 0 in grid:
        return
    if _recorder is not None:
        _recorder.append(Launch(kernel, grid, arguments, constants, tuning))
        return
    first = next(value for value in arguments.values() if isinstance(value, Tensor))
    options = {} if INTERPRETED else tuning.options()
    if first.device.type == "cuda":
        with torch.cuda.device(first.device):
            kernel[grid](**arguments, **constants, **options)
    else:
        kernel[grid](**arguments, **constants, **options)


def dot_precision(dtype: torch.dtype) -> str:
    """Precision of `tl.dot`: TF32 for float32 if PyTorch is allowed to use less than IEEE for products, else IEEE.

    `torch.set_float32_matmul_precision` sets `fp32_precision`, too; its own getter raises after the latter was set.
    """
    allowed = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision not in ("ieee", "none")
    return "tf32" if allowed and not INTERPRETED else "ieee"
