"""Peak memory of attention's forward and backward pass at several lengths, each measured in a separate process.

A process rarely gives back what it has held, so that a second measurement in it would show less.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from .cases import ATTENTION, LONG_CASES, AttentionCase
from .harness import Out, append, facts, headline, in_process, run_command, start_progress, table

STATUS = Path("/proc/self/status")
LENGTH_SECONDS = 40.0  # of all runners at one length


def peak_megabytes(runner: str, case: AttentionCase) -> float:
    """MB above the inputs at the peak of one forward and backward pass; Linux only.

    Raises:
        RuntimeError: the process failed; the message is what it printed.
    """
    return float(in_process("benchmarks.memory", "--runner", runner, "--case", json.dumps(case)))


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at its highest; Linux only.

    Raises:
        RuntimeError: the system does not say.
    """
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    for line in lines:
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"memory is read from {STATUS}, which Linux has; found no {field} there")


def peak_above(run: Callable[[], object]) -> float:
    """MB that this process needs for a call, at its peak, above what it holds before; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    before = resident("VmRSS")
    run()
    return (resident("VmHWM") - before) / 2**20


def _peak_here(runner: str, case: AttentionCase) -> float:
    run, peak = ATTENTION[runner], 0.0
    small = AttentionCase(case.pattern, 1, n=4, tokens=8)
    for warm in (small, case):  # the first call loads libraries and starts threads
        qkv = warm.qkv().requires_grad_()
        grad = torch.randn(warm.batch, warm.tokens, qkv.shape[2] // 3)

        def both_passes(x: torch.Tensor = qkv, case: AttentionCase = warm, grad: torch.Tensor = grad) -> None:
            torch.autograd.grad(run(x, case), x, grad)

        peak = peak_above(both_passes)
    return peak


def main(
    only: Annotated[str, typer.Option(help="Only the runners whose name contains this.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="The shortest length alone: under a minute.")] = False,
    out: Out = None,
    runner: Annotated[str, typer.Option(hidden=True)] = "",
    case: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure the peak memory of attention beyond its inputs, forward and backward in float32. Linux only.

    Each sequence has twice the tokens of the one before, and four times the scores: a form of attention that stores
    them needs four times the memory.
    """
    if runner:
        print(_peak_here(runner, AttentionCase(*json.loads(case))))
        return
    console, about = Console(), facts()
    console.print(headline(about), highlight=False, soft_wrap=True)
    lengths, names = LONG_CASES[: 1 if quick else None], [name for name in ATTENTION if only in name]
    progress = start_progress("peak memory", len(lengths) * len(names), LENGTH_SECONDS / 4 * len(lengths) * len(names))
    lines = []
    made = table("Peak memory above the inputs, forward and backward, float32, MB", ("case", *names))
    for each in lengths:
        peaks = {}
        for name in names:
            peaks[name] = peak_megabytes(name, each)
            progress.step(f"{each.name}: {name} {peaks[name]:.1f} MB")
        made.add_row(each.name, *(f"{peak:.1f}" for peak in peaks.values()))
        shared = {"benchmark": "ops/memory", "case": each.name}
        lines += [shared | {"runner": name, "peak_megabytes": peak} for name, peak in peaks.items()]
    console.print(made)
    append(out, lines, about)


if __name__ == "__main__":
    run_command(main)
