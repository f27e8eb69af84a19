"""Seconds of a call on a GPU: out of a cold L2 cache, in a CUDA graph, both, waited for, and one after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from .roofline import Ceilings

L2_BYTES = 256 << 20  # more than any L2
WARM_UP = 5  # calls that are not counted: torch.compile records its graphs in the first ones
Call = Callable[[], object]


def cold(run: Call, calls: int = 30) -> float:
    """Median seconds of one call by events, with the L2 cache overwritten before each."""
    flush = torch.empty(L2_BYTES, dtype=torch.int8, device="cuda")
    for _ in range(3):
        run()
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for begin, end in pairs:
        flush.zero_()
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1e3


def _captured(run: Call, calls: int) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    return graph


def graphed(run: Call, calls: int = 20, repeats: int = 10) -> float:
    """Median seconds of one call, captured `calls` times in a CUDA graph: no launch is waited for."""
    graph = _captured(run, calls)
    graph.replay()
    samples = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / 1e3 / calls)
    return statistics.median(samples)


def graphed_cold(run: Call) -> float:
    """The same of one call a graph, with the L2 cache overwritten before each replay."""
    return cold(_captured(run, calls=1).replay)


def waited(run: Call, calls: int = 50) -> float:
    """Median seconds by the wall clock from a call to the end of all that it started on the GPU."""
    samples = []
    for _ in range(WARM_UP + calls):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples[WARM_UP:])


def streamed(run: Call, calls: int = 20, repeats: int = 5) -> float:
    """Median seconds of a call by the wall clock where calls follow one another without a wait between them."""
    for _ in range(WARM_UP):
        run()
    samples = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
        samples.append((time.perf_counter() - start) / calls)
    return statistics.median(samples)


def clocked(run: Call, calls: int = 3) -> float:
    """The same without a GPU, by the wall clock: for trying the script out."""
    samples = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def peak_megabytes(run: Call) -> float:
    """Peak memory of one call above what was allocated before."""
    run()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def ceilings() -> Ceilings:
    """Measured here: a copy of 1 GiB, a bfloat16 product of 8192 x 8192 x 8192, and exponentials in registers."""
    from .gpu_kernels import exponentials_kernel

    source, target = (torch.empty(1 << 30, dtype=torch.int8, device="cuda") for _ in range(2))
    copy = graphed(lambda: target.copy_(source), calls=5)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = graphed(lambda: a @ b, calls=5)
    block, programs, repeats = 1024, 16 * torch.cuda.get_device_properties(0).multi_processor_count, 10_000
    out = torch.empty(block * programs, device="cuda")
    seconds = graphed(lambda: exponentials_kernel[(programs,)](out, repeats, BLOCK=block, num_warps=4), calls=5)
    return Ceilings(
        2 * (1 << 30) / copy, 2 * 8192**3 / product, block * programs * repeats / seconds, "measured in this run"
    )
