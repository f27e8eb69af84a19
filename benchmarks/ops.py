"""Times of the ops and of every form of them in PyTorch on a CPU, and what `auto` takes on each instruction set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

from fermt.progress import ProgressDisplay
from fermt_kernels.backends import resolve
from fermt_kernels.cpp import library
from fermt_kernels.testing import inaccuracy

from . import cases
from .cases import OURS, Run
from .harness import (
    DTYPES,
    Case,
    Out,
    Timings,
    append,
    facts,
    headline,
    in_process,
    interleave,
    names_among,
    run_command,
    start_progress,
    table,
)

QUICK_CASES = ("mixed B=1 D=16", "cross B=1 D=16", "DAU 128x128 B=1", "linear 768-192 GELU B=1")  # what --quick keeps
QUICK_SECONDS = 0.1
PASSES = ("forward", "both")
# Environment variables that limit PyTorch, and the libraries that it calls, to the instructions of a CPU with this set.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
LIMITS_OF_PYTORCH = {
    "avx512_vnni": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx2_vnni": {**AVX2, "ONEDNN_MAX_CPU_ISA": "AVX2_VNNI"},
    "avx2": {**AVX2, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "generic": {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
ROW_SECONDS, ISA_SECONDS = 8.0, 15.0  # of a case in a dtype, checks included, and of an instruction set's rows


def _results(run: Run, inputs: list[Tensor], grad: Tensor, dtype: torch.dtype) -> list[Tensor]:
    leaves = [t.detach().to(dtype).requires_grad_() for t in inputs]
    out = run(*leaves)
    return [out.detach(), torch.autograd.grad(out, leaves, grad.to(dtype))[0]]


def _wrong(runs: dict[str, Run], inputs: list[Tensor], grad: Tensor) -> dict[str, str]:
    """Runners whose output or whose gradient of the first input breaks the accuracy rule, with the reason.

    The gradients of weights, for the Dual Attention Unit a handful of numbers each, are for the tests, which draw often
    enough.
    """
    dtype = inputs[0].dtype
    truth, eager = (_results(runs["eager"], inputs, grad, each) for each in (torch.float64, dtype))
    found = {}
    for name, run in runs.items():
        for three in zip(_results(run, inputs, grad, dtype), eager, truth, strict=True):
            if reason := inaccuracy(*three):
                found[name] = reason
    return found


def calls(runs: dict[str, Run], inputs: list[Tensor], what: str) -> dict[str, Case]:
    """Calls of the forward pass, or of both passes."""
    if what == "forward":
        return {name: Case(partial(torch.no_grad()(run), *inputs)) for name, run in runs.items()}
    leaves = [t.detach().requires_grad_() for t in inputs]
    grad = torch.randn_like(runs["eager"](*inputs))

    def both_passes(run: Run) -> object:
        return torch.autograd.grad(run(*leaves), leaves, grad)

    return {name: Case(partial(both_passes, run)) for name, run in runs.items()}


def measure(
    title: str, runs: dict[str, Run], inputs: list[Tensor], seconds: float, console: Console, progress: ProgressDisplay
) -> dict[str, Timings]:
    """Timings of the forward pass, and of forward and backward. A wrong result of ours gets none; a peer's is noted."""
    timed = dict(runs)
    torch.manual_seed(0)  # the same gradients in every run, so that a verdict can be repeated
    for name, reason in _wrong(runs, inputs, torch.randn_like(runs["eager"](*inputs))).items():
        verdict = "no number" if name == OURS else "timed all the same"
        console.print(f"{title}: {name} breaks the accuracy rule, {verdict}: {reason}", highlight=False)
        if name == OURS:
            del timed[name]
    progress.step(f"{title}: compared with float64")
    turns = partial(interleave, seconds=seconds, least_rounds=3, progress=progress)
    return {what: turns(calls(timed, inputs, what), name=f"{title}, {what}") for what in PASSES}


def _best(timings: Timings) -> str:
    """The fastest of the others."""
    return min((name for name in timings if name != OURS), key=lambda name: timings[name].median)


def auto_lines(dtypes: list[str], passes: tuple[str, ...], only: str, seconds: float) -> Iterator[dict[str, Any]]:
    """What `auto` takes for each op on the instruction set of this process, and how many times as fast it is."""
    for op, (_, case) in cases.OPS.items():
        if only not in case.name:
            continue
        for dtype in dtypes:
            inputs = case.inputs(DTYPES[dtype])
            for what in passes:
                timings = interleave(calls(case.runners(), inputs, what), seconds=seconds)
                best = _best(timings)
                takes = resolve(op, "auto", "cpu", DTYPES[dtype], what == "both")
                yield {
                    "benchmark": "ops/auto", "op": op, "case": case.name, "isa": library.load().isa,
                    "pytorch": torch.backends.cpu.get_cpu_capability(), "dtype": dtype,
                    "pass": what, "takes": takes, "best": best, "ratio": timings.ratio(best, OURS),
                }  # fmt: skip


def auto_row(line: dict[str, Any]) -> list[str]:
    """A row of the table, marked if auto has taken a kernel that is slower than PyTorch."""
    slower = " slower" if line["ratio"] < 1 and line["takes"] != "reference" else ""
    words = [str(line[key]) for key in ("case", "isa", "dtype", "pass", "takes", "best")]
    return [*words, f"{line['ratio']:.2f}x{slower}"]


def report_auto(options: list[str], console: Console, progress: ProgressDisplay) -> list[dict[str, Any]]:
    """Prints a row for each op and instruction set, and returns the lines.

    Each set is measured in a process of its own, in which PyTorch has no more instructions either, as on such a CPU.
    """
    lines: list[dict[str, Any]] = []
    for isa in library.supported_isas():
        variables = {library.ISA_VARIABLE: isa, **LIMITS_OF_PYTORCH.get(isa, {})}
        printed = in_process("benchmarks.ops", "--isa-rows", *options, **variables)
        lines += [json.loads(line) for line in printed.splitlines()]
        progress.step(f"what auto takes on {isa}")
    headings = ("case", "ISA", "dtype", "pass", "auto takes", "best of PyTorch", "ratio")
    console.print(table("What auto takes, and PyTorch's time over its", headings, map(auto_row, lines), left=6))
    return lines


def main(
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each runner in each row.")] = 0.2,
    dtypes: Annotated[str, typer.Option(help="Dtypes to measure, with commas between them.")] = "float32,bfloat16",
    compiled: Annotated[
        bool, typer.Option(help="Also eager PyTorch under torch.compile, which compiles for a minute or two.")
    ] = False,
    auto: Annotated[bool, typer.Option(help="Also what auto takes on each instruction set of this CPU.")] = True,
    only: Annotated[str, typer.Option(help="Only the cases whose name contains this.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute: four cases in float32, and auto's forward pass.")
    ] = False,
    out: Out = None,
    isa_rows: Annotated[bool, typer.Option("--isa-rows", hidden=True)] = False,
) -> None:
    """Time attention, the Dual Attention Unit and linear layers, ours and every form that PyTorch has of them.

    The runners of a row take turns; medians are shown. "both" is forward and backward. "eager" and "SDPA a group" call
    attention once for each query group, "SDPA, mask" once with a mask. The last column is the speed of ours over that
    of the fastest other runner.

    The last table shows, for each instruction set of this CPU, which backend auto takes and its speed over that of the
    best of PyTorch, which is limited to the same instructions. auto should never take a kernel that is slower.

    Example: python -m benchmarks.ops --quick
    """
    chosen = names_among("--dtypes", dtypes, DTYPES)
    if quick:
        seconds, chosen = min(seconds, QUICK_SECONDS), chosen[:1]
    passes = PASSES[:1] if quick else PASSES
    if isa_rows:
        for line in auto_lines(chosen, passes, only, seconds):
            print(json.dumps(line))
        return
    console, about = Console(width=max(Console().width, 112)), facts()
    console.print(headline(about), highlight=False)
    wanted = {
        op: [case for case in every if only in case.name and (not quick or case.name in QUICK_CASES)]
        for op, (every, _) in cases.OPS.items()
    }
    rows = sum(map(len, wanted.values())) * len(chosen)
    isas = library.supported_isas() if auto and library.unavailable_reason() is None else []
    progress = start_progress(
        f"ops: {rows} rows, and auto on {len(isas)} instruction sets",
        3 * rows + len(isas),
        rows * (ROW_SECONDS / (4 if quick else 1) + 8 * seconds) + ISA_SECONDS / (4 if quick else 1) * len(isas),
    )
    lines = []
    for op, todo in wanted.items():
        names = [*cases.OPS[op][1].runners(), *["compiled"] * compiled]
        made = table(f"{op}, milliseconds", ("case", "dtype", "pass", *names, "ours is"), left=3)
        for case in todo:
            runs = case.runners()
            if compiled:
                runs = runs | {"compiled": torch.compile(runs["eager"])}
            for dtype in chosen:
                title = f"{case.name}, {dtype}"
                for what, timings in measure(
                    title, runs, case.inputs(DTYPES[dtype]), seconds, console, progress
                ).items():
                    cells = [f"{timings[name].median * 1e3:.3f}" if name in timings else "-" for name in names]
                    ratio = f"{timings.ratio(_best(timings), OURS):.2f}x" if OURS in timings else "-"
                    made.add_row(case.name, dtype, what, *cells, ratio)
                    head = {"benchmark": "ops", "case": case.name, "dtype": dtype, "pass": what}
                    lines += [head | {"runner": name} | timing._asdict() for name, timing in timings.items()]
        if todo:
            console.print(made)
    if isas:
        options = ["--seconds", str(seconds), "--dtypes", ",".join(chosen), "--only", only, *["--quick"] * quick]
        lines += report_auto(options, console, progress)
    append(out, lines, about)


if __name__ == "__main__":
    run_command(main)
