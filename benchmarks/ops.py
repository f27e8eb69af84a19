"""Attention and the Dual Attention Unit against everything that PyTorch offers for them on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fermt_kernels.testing import inaccuracy

from . import cases, machine, peers_ops
from .harness import Case, Timing, interleave
from .memory import peak_megabytes
from .peers_ops import OURS
from .progress import Progress

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Run = Callable[..., Tensor]
QUICK = ("mixed B=1 D=16", "cross B=1 D=16", "DAU 128x128 B=1")  # what --quick keeps
ROW_SECONDS, LENGTH_SECONDS = 8.0, 40.0  # of a case in a dtype, checks included, and of a length's peak memory


def _both_passes(run: Run, leaves: list[Tensor], grad: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(run(*leaves), leaves, grad)


def _wrong(runs: dict[str, Run], inputs: list[Tensor], grad: Tensor) -> dict[str, str]:
    """Runners whose output or whose gradient of the first input breaks the accuracy rule, with the reason.

    The gradients of the unit's weights, a handful of numbers each, are for the tests, which draw often enough.
    """

    def results(run: Run, dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in inputs]
        out = run(*leaves)
        return [out.detach(), torch.autograd.grad(out, leaves, grad.to(dtype))[0]]

    dtype = inputs[0].dtype
    truth, eager = results(runs["eager"], torch.float64), results(runs["eager"], dtype)
    found = {
        name: [inaccuracy(*three) for three in zip(results(run, dtype), eager, truth, strict=True)]
        for name, run in runs.items()
    }
    return {name: reason for name, reasons in found.items() for reason in reasons if reason}


def measure(
    title: str, runs: dict[str, Run], inputs: list[Tensor], seconds: float, console: Console, progress: Progress
) -> dict[str, dict[str, Timing]]:
    """Timings of the forward pass, and of forward and backward. A wrong result of ours gets none; a peer's is noted."""
    grad = torch.randn_like(runs["eager"](*inputs))
    timed = dict(runs)
    for name, reason in _wrong(runs, inputs, grad).items():
        verdict = "no number" if name == OURS else "timed all the same"
        console.print(f"{title}: {name} breaks the accuracy rule, {verdict}: {reason}", highlight=False)
        if name == OURS:
            del timed[name]
    progress.step(f"{title}: compared with float64")
    leaves = [t.detach().requires_grad_() for t in inputs]
    turns = partial(interleave, seconds=seconds, least_rounds=3, progress=progress)
    with torch.inference_mode():
        forward = {name: Case(partial(run, *inputs)) for name, run in timed.items()}
        measured = {"forward": turns(forward, name=f"{title}, forward")}
    both = {name: Case(_both_passes(run, leaves, grad)) for name, run in timed.items()}
    return measured | {"both": turns(both, name=f"{title}, both")}


def _bound(runners: dict[str, peers_ops.Attention], case: cases.AttentionCase) -> dict[str, Run]:
    return {name: partial(run, case=case) for name, run in runners.items()}


def _row(table: Table, title: str, dtype: str, what: str, timings: dict[str, Timing], names: list[str]) -> None:
    best = min((timings[name].median for name in names if name in timings and name != OURS), default=None)
    cells = [f"{timings[name].median * 1e3:.3f}" if name in timings else "-" for name in names]
    ratio = f"{best / timings[OURS].median:.2f}x" if OURS in timings and best else "-"
    table.add_row(title, dtype, what, *cells, ratio)


def main(
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each runner in each row.")] = 0.2,
    dtypes: Annotated[str, typer.Option(help="Which of float32,bfloat16 to measure.")] = "float32,bfloat16",
    compiled: Annotated[bool, typer.Option(help="Also torch.compile of eager (a minute or two of compiling).")] = False,
    memory: Annotated[
        bool, typer.Option(help="Also the peak memory of the long cases, each in its own process.")
    ] = True,
    only: Annotated[str, typer.Option(help="Only the cases whose name contains this.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Three cases and the shortest length: under a minute.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Append one JSON line a measurement to this file.")] = None,
) -> None:
    """Milliseconds of attention and the Dual Attention Unit, beside every form that PyTorch has for them.

    The runners of a row take turns; medians are shown. "both" is forward and backward. "eager" and "SDPA a group"
    attend once for each query group, "SDPA, mask" over all tokens with a mask. The last column compares with the
    fastest of the others.
    """
    console = Console(width=max(Console().width, 112))
    facts = machine.facts()
    console.print(machine.headline(facts), highlight=False)
    attention, unit = dict(peers_ops.ATTENTION), dict(peers_ops.UNIT)
    if compiled:
        attention["compiled"] = torch.compile(peers_ops.eager_attention)
        unit["compiled"] = torch.compile(peers_ops.eager_unit)

    def wanted(name: str) -> bool:
        return only in name and (not quick or name in QUICK)

    chosen = [case for case in (*cases.ATTENTION, cases.LONG[-1]) if wanted(case.name)]
    units = [case for case in cases.UNITS if wanted(case.name)]
    lengths = cases.LONG[: 1 if quick else None] if memory else ()
    rows = (len(chosen) + len(units)) * len(dtypes.split(","))
    progress = Progress(
        f"ops: {rows} rows of {len(attention)} runners, and peak memory at {len(lengths)} lengths",
        3 * rows + len(lengths),
        rows * (ROW_SECONDS + 2 * seconds * len(attention)) + LENGTH_SECONDS * len(lengths),
    )
    lines: list[dict[str, Any]] = []

    def run_all(title: str, todo: list[tuple[str, dict[str, Run], Callable[[torch.dtype], list[Tensor]]]]) -> None:
        if not todo:
            return
        names = list(todo[0][1])
        table = Table(title=f"{title}, milliseconds", box=box.SIMPLE, padding=(0, 0), pad_edge=False)
        for heading in ("case", "dtype", "pass", *names, "ours is"):
            table.add_column(heading, justify="left" if heading in ("case", "dtype", "pass") else "right", no_wrap=True)
        for name, runs, inputs in todo:
            for dtype in dtypes.split(","):
                measured = measure(f"{name}, {dtype}", runs, inputs(DTYPES[dtype]), seconds, console, progress)
                for what, timings in measured.items():
                    _row(table, name, dtype, what, timings, names)
                    lines.extend(
                        {"benchmark": "ops", "case": name, "dtype": dtype, "pass": what, "runner": runner}
                        | timing._asdict()
                        | facts
                        for runner, timing in timings.items()
                    )
        console.print(table)

    run_all("Attention", [(case.name, _bound(attention, case), case.inputs) for case in chosen])
    run_all("Dual Attention Unit", [(case.name, unit, case.inputs) for case in units])
    if lengths:
        lines += [line | facts for line in report_memory(lengths, console, progress)]
    if out is not None:
        with out.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def report_memory(lengths: Sequence[cases.AttentionCase], console: Console, progress: Progress) -> list[dict[str, Any]]:
    """Peak memory of forward and backward at several lengths, each length four times the scores of the last."""
    table = Table(title="Peak memory above the inputs, forward + backward, float32, MB", box=box.SIMPLE)
    table.add_column("case")
    for name in peers_ops.ATTENTION:
        table.add_column(name, justify="right")
    lines = []
    for case in lengths:
        peaks = {name: peak_megabytes(name, case) for name in peers_ops.ATTENTION}
        progress.step(f"{case.name}: {', '.join(f'{name} {peak:.1f} MB' for name, peak in peaks.items())}")
        table.add_row(case.name, *(f"{peak:.1f}" for peak in peaks.values()))
        lines += [
            {"benchmark": "ops/memory", "case": case.name, "runner": name, "peak_megabytes": peak}
            for name, peak in peaks.items()
        ]
    console.print(table)
    return lines


if __name__ == "__main__":
    typer.run(main)
