"""Clocks of a GPU for the harness, the timing of runners in turns by each clock, and its table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from ..cases import OURS
from ..harness import Case, Clock, Sample, Timings, markdown, take_turns, wall_clock
from .work import Ceilings

L2_BYTES = 256 << 20  # more than any L2
WARM_UP = 5  # calls that are not counted: torch.compile records its graphs in the first ones
COLD_CALLS = 10  # calls of a cold sample
SPIN_SECONDS = 0.2  # seconds that a GPU works before it is timed, for its clock to rise
Run = Callable[[], object]
Say = Callable[[str], object]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def cold(case: Case) -> Sample:
    """A call by events, with the L2 cache overwritten before it: the median of a burst of calls.

    Within a burst the CPU runs ahead, so that launches are not waited for.
    """
    flush = torch.empty(L2_BYTES, dtype=torch.int8, device="cuda")

    def sample() -> float:
        pairs = [(_event(), _event()) for _ in range(COLD_CALLS)]
        for begin, end in pairs:
            flush.zero_()
            begin.record()
            case.run()
            end.record()
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1e3

    return sample


def _captured(run: Run, calls: int) -> torch.cuda.CUDAGraph:
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


def graphed(case: Case, calls: int = 20) -> Sample:
    """A call in a CUDA graph, captured `calls` times: no launch is waited for."""
    graph = _captured(case.run, calls)

    def sample() -> float:
        begin, end = _event(), _event()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / calls

    return sample


def graphed_cold(case: Case) -> Sample:
    """The same with one call in the graph, and the L2 cache overwritten before each replay."""
    return cold(Case(_captured(case.run, calls=1).replay))


def streamed(case: Case, calls: int = 20) -> Sample:
    """A call by the wall clock where calls follow one another without a wait between them."""
    for _ in range(WARM_UP):
        case.run()

    def sample() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            case.run()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    return sample


def waited(case: Case) -> Sample:
    """The wall clock from a call to the end of all that it started on the GPU."""
    return streamed(case, calls=1)


CLOCKS: dict[str, Clock] = {
    "waited": waited,
    "streamed": streamed,
    "graph": graphed,
    "cold graph": graphed_cold,
    "cold": cold,
}
BY_THE_WALL = ("waited", "streamed")  # for calls that end on the CPU, or are graphs already: those cannot be captured
FRAME_CLOCKS = (*BY_THE_WALL, "graph", "cold graph")
CAPTION = (
    "Milliseconds, and times as long as ours. waited: from a call to the end of its work, by the wall clock. streamed: "
    "calls one after the other, none waited for. graph: captured, without the CPU's share. cold graph: the same, the "
    "L2 cache overwritten before each. Frames per second: streamed, where that is measured."
)


def seconds_of(run: Run, device: str, samples: int = 5) -> float:
    """Median seconds of a call by itself in a CUDA graph; without a GPU one by the wall clock, to try a script out."""
    on_gpu = device == "cuda"
    sample = graphed(Case(run)) if on_gpu else wall_clock(Case(run))
    sample()
    return statistics.median(sample() for _ in range(samples if on_gpu else 1))


def peak_megabytes(run: Run) -> float:
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
    from .kernels import exponentials_kernel

    source, target = (torch.empty(1 << 30, dtype=torch.int8, device="cuda") for _ in range(2))
    copy = seconds_of(lambda: target.copy_(source), "cuda")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = seconds_of(lambda: a @ b, "cuda")
    block, programs, repeats = 1024, 16 * torch.cuda.get_device_properties(0).multi_processor_count, 10_000
    out = torch.empty(block * programs, device="cuda")
    seconds = seconds_of(lambda: exponentials_kernel[(programs,)](out, repeats, BLOCK=block, num_warps=4), "cuda")
    return Ceilings(
        2 * (1 << 30) / copy, 2 * 8192**3 / product, block * programs * repeats / seconds, "measured in this run"
    )


class Runner(NamedTuple):
    """Makes a call that is to be timed, and says by which clocks."""

    build: Callable[[], Run]
    clocks: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, clocks: tuple[str, ...]) -> Runner:
        """A runner whose call is already built."""
        return cls(lambda: run, clocks)


class Machine(NamedTuple):
    """The device on which runners are timed, and for how long; `say` prints progress."""

    device: str
    say: Say
    seconds: float = 0.3  # for each runner and clock

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


def timed(
    title: str, runners: Mapping[str, Runner], shared: Mapping[str, Any], machine: Machine
) -> Iterator[dict[str, Any]]:
    """Gives the runners turns by each clock, and yields a line for each runner and clock.

    A line has `shared`, median `seconds`, `p20`, `p80`, `against_ours` (the median over rounds of how many times as
    long it takes) and on a GPU `megabytes`. What fails has the reason as `failed` instead. Every call has torch.compile
    start anew, and fail where it would otherwise leave a peer uncompiled without a word.
    """
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield from _timed(title, runners, shared, machine)


def _spin(run: Run) -> None:
    until = time.perf_counter() + SPIN_SECONDS
    while time.perf_counter() < until:
        run()
        torch.cuda.synchronize()


def _timed(
    title: str, runners: Mapping[str, Runner], shared: Mapping[str, Any], machine: Machine
) -> Iterator[dict[str, Any]]:
    runs: dict[str, Run] = {}
    failed: dict[str, str] = {}
    megabytes: dict[str, float | None] = {}

    def tried(name: str, action: Callable[[], None]) -> str:
        try:
            action()
        except Exception as error:  # that it cannot run this is a result, with its reason
            return f"{type(error).__name__}: {str(error)[:200]}"
        return ""

    def build(name: str) -> None:
        run = runners[name].build()
        megabytes[name] = peak_megabytes(run) if machine.on_gpu else None
        runs[name] = run

    for name in runners:
        if reason := tried(name, lambda name=name: build(name)):  # type: ignore[misc]
            failed[name] = reason
    for clock, of_gpu in CLOCKS.items():
        samplers: dict[str, Sample] = {}
        firsts: dict[str, list[list[float]]] = {}

        def prepare(
            name: str,
            clock: Clock = of_gpu,
            samplers: dict[str, Sample] = samplers,
            firsts: dict[str, list[list[float]]] = firsts,
        ) -> None:
            sample = (clock if machine.on_gpu else wall_clock)(Case(runs[name]))
            firsts[name], samplers[name] = [[sample()]], sample

        for name in (name for name, runner in runners.items() if clock in runner.clocks):
            if reason := failed.get(name) or tried(name, lambda name=name: prepare(name)):  # type: ignore[misc]
                machine.say(f"{title}, {name}, {clock}: {reason}")
                yield {**shared, "runner": name, "timing": clock, "failed": reason}
        if not samplers:
            continue
        ours = next((name for name in samplers if name.startswith(OURS)), None)
        if machine.on_gpu:
            _spin(runs[ours or next(iter(samplers))])
        timings = take_turns(samplers, seconds=machine.seconds, repeats=1) if machine.on_gpu else Timings(firsts)
        for name, timing in timings.items():
            ratio = timings.ratio(name, ours) if ours else None
            against = f", {ratio:.2f}x ours" if ratio else ""
            machine.say(f"{title}, {name}, {clock}: {timing.median * 1e3:.4f} ms{against}")
            figures = {"seconds": timing.median, "p20": timing.p20, "p80": timing.p80, "against_ours": ratio}
            yield {**shared, "runner": name, "timing": clock, **figures, "megabytes": megabytes[name]}
    if machine.on_gpu:
        torch.cuda.empty_cache()


def _cell(line: dict[str, Any]) -> str:
    against = f", {line['against_ours']:.2f}x" if line["against_ours"] else ""
    return f"{line['seconds'] * 1e3:.3f}{against}"


def table(lines: list[dict[str, Any]]) -> str:
    """A Markdown table: a row per runner, a column per clock, and frames per second of one and of all targets."""
    found: dict[tuple, dict[str, dict[str, Any]]] = {}
    for line in lines:
        group = tuple(line[name] for name in ("benchmark", "dtype", "batch"))
        found.setdefault((group, line["runner"]), {})[line["timing"]] = line
    rows = []
    for (group, runner), by_clock in found.items():
        cells = [*map(str, group), runner]
        for clock in FRAME_CLOCKS:
            line = by_clock.get(clock, {})
            cells.append(_cell(line) if "seconds" in line else "failed" if line else "-")
        seconds = {clock: line["seconds"] for clock, line in by_clock.items() if "seconds" in line}
        rate = next((1 / seconds[clock] for clock in ("streamed", "waited", "graph") if clock in seconds), 0.0)
        rows.append([*cells, f"{rate:.0f}", f"{rate * group[2]:.0f}"])
    failed = {(line["runner"], line["failed"]) for line in lines if "failed" in line}
    headings = ("what", "dtype", "B", "runner", *FRAME_CLOCKS, "frames/s a target", "frames/s of all")
    return "\n".join([markdown(headings, rows), "", CAPTION, *(f"{who} failed: {why}" for who, why in sorted(failed))])
