"""The peak arithmetic rate of the CPU, measured."""

from __future__ import annotations

import time

import torch

from ..cpp import frame as compiled
from ..cpp.abi import DTYPES

PEAK_RUNS = 5
PEAK_SECONDS = 0.02  # of one run
PEAK_DTYPES = (torch.float32, torch.bfloat16)


def peak_flops(dtype: torch.dtype = torch.float32) -> float:
    """Measures the floating-point operations per second that multiply-adds reach on torch's threads.

    It is the best of several runs of multiply-adds on registers, with the instruction set in use: an upper bound of
    matrix products on this machine.

    Args:
        dtype: of the operands, torch.float32 or torch.bfloat16.

    Raises:
        TypeError: the dtype is another.
        RuntimeError: the compiled library is not usable; the message has the reason.
    """
    if dtype not in PEAK_DTYPES:
        raise TypeError(f"peak_flops: dtype must be one of {', '.join(map(str, PEAK_DTYPES))}; got {dtype!r}")
    threads, iterations = torch.get_num_threads(), 1024

    def run() -> tuple[float, int]:
        start = time.perf_counter()
        operations = compiled.fma_peak(DTYPES[dtype], threads, iterations)
        return time.perf_counter() - start, operations

    def shortest() -> float:  # a run that was interrupted would say that few iterations are enough
        return min(run()[0] for _ in range(3))

    while (seconds := shortest()) < PEAK_SECONDS / 4:
        iterations *= 2
    iterations = max(1, round(iterations * PEAK_SECONDS / seconds))
    return max(operations / seconds for seconds, operations in (run() for _ in range(PEAK_RUNS)))
