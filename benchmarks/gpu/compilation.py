"""Launches, recorded without a GPU and reduced to what a compiler needs, and their compilation by several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from fermt.machine import cores
from fermt_kernels import triton as triton_backend
from fermt_kernels.triton.launch import Launch, Tuning, recording

DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
INTEGERS = {torch.uint8: "u8", torch.int32: "i32", torch.int64: "i64"}
KERNEL_SECONDS = 1.5  # of compiling one on one core
ALIGNMENT = 16  # bytes; what is aligned to it, and numbers that it divides, are compiled differently


@contextmanager
def as_on_a_gpu() -> Iterator[list[Launch]]:
    """Lets the Triton backend take CPU tensors, and records what it would launch on a GPU; none of it runs."""
    with (
        patch.object(triton_backend, "DEVICES", ("cuda", "cpu")),
        patch.object(triton_backend, "unavailable_reason", lambda: None),
        recording() as launches,
    ):
        yield launches


def launched(run: Callable[[], object]) -> list[Launch]:
    """What the call would launch on a GPU."""
    with as_on_a_gpu() as launches:
        run()
    return launches


def _type(value: Any) -> Any:
    """The type that the launcher gives a kernel for this argument; 1 is compiled in, as Triton does it."""
    if isinstance(value, tuple):
        return tuple(map(_type, value))
    if isinstance(value, Tensor):
        return f"*{(DTYPES | INTEGERS)[value.dtype]}"
    if isinstance(value, float):
        return "fp32"
    return "constexpr" if value == 1 else "i32" if abs(value) < 2**31 else "i64"


def _leaves(value: Any, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, (*path, i))
    else:
        yield path, value


def _is_aligned(value: Any) -> bool:
    return isinstance(value, (Tensor, int)) and _number(value) % ALIGNMENT == 0


def _number(value: Tensor | int) -> int:
    return value.data_ptr() if isinstance(value, Tensor) else value


class Source(NamedTuple):
    """A launch reduced to what a compiler needs; can be sent to another process."""

    module: str
    kernel: str
    case: str
    signature: dict[str, Any]
    constants: dict[tuple[int, ...], Any]
    divisible: tuple[tuple[int, ...], ...]  # arguments that are multiples of ALIGNMENT
    tuning: Tuning


def source_of(case: str, launch: Launch) -> Source:
    names = launch.kernel.arg_names
    arguments = {name: launch.arguments[name] for name in names if name in launch.arguments}
    signature = {name: _type(arguments[name]) if name in arguments else "constexpr" for name in names}
    leaves = [leaf for name, value in arguments.items() for leaf in _leaves(value, (names.index(name),))]
    ones = {path: 1 for path, value in leaves if isinstance(value, int) and value == 1}
    constants = {(names.index(name),): value for name, value in launch.constants.items()} | ones
    divisible = [path for path, value in leaves if _is_aligned(value)]
    function = launch.kernel.fn
    return Source(function.__module__, function.__name__, case, signature, constants, tuple(divisible), launch.tuning)


def distinct(launches: Iterable[tuple[str, Launch]]) -> list[tuple[Source, Launch]]:
    """Each different compilation that these need, under the first of its names, and a launch of it."""
    found: dict[str, tuple[Source, Launch]] = {}
    for case, launch in launches:
        source = source_of(case, launch)
        found.setdefault(repr(source._replace(case="")), (source, launch))
    return list(found.values())


class _StandIn:
    """In the place of Triton's driver: says which GPU to compile for, so that no process asks for the GPU itself."""

    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._arch, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


_waiting: list[Launch] = []  # of `warm`, inherited by the processes that it forks


def _compile(index: int, arch: int) -> str | None:
    """Compiles a launch as running it would, into Triton's cache on disk; the reason if it cannot be."""
    from triton.runtime import driver

    driver.set_active(_StandIn(arch))
    kernel, grid, arguments, constants, tuning = _waiting[index]
    try:
        kernel.run(grid=grid, warmup=True, **arguments, **constants, **tuning.options())
    except Exception as error:  # the part that needs the kernel says so again
        return f"{kernel.fn.__name__}, {tuning}: {type(error).__name__}: {str(error)[:200]}"
    return None


def warm(launches: Iterable[Launch], arch: int, workers: int) -> Iterator[str | None]:
    """Compiles each launch for an architecture; yields the reason for each that cannot be, else None, as they come."""
    _waiting[:] = launches
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            yield from pool.map(partial(_compile, arch=arch), range(len(_waiting)))
    finally:
        _waiting.clear()


def workers_here() -> int:
    """Processes that compile at once."""
    return max(1, cores() - 1)
