"""Everything on a GPU in three runs, each under nine minutes: python -m benchmarks.gpu headline, checks or peers."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from fermt.signals import exit_status, raising
from fermt_kernels import triton as triton_backend
from fermt_kernels.triton import INTERPRETED

from ..harness import ROOT, facts, headline, names_among, run_command
from . import ops, plan, supervise
from .clocks import Machine
from .parts import PARTS, RUNS, Share, compile_all, estimate

OUT = "OUT"  # the environment variable that names the results' folder
CORES = 16  # of the machine that a dry run is about


def _child(name: str, share: Share, of: str, arch: int, device: str) -> None:
    """Prints the lines of a part as JSON; all else goes to standard error."""
    printed, sys.stdout = sys.stdout, sys.stderr
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, for the peers' convolutions too
    torch.backends.cudnn.benchmark = not name.startswith("check")  # the peers' convolutions at their best
    machine = Machine(device, partial(print, file=sys.stderr))
    if name == supervise.COMPILE:
        lines: Any = compile_all(of.split(","), arch, machine.say)
    else:
        lines = PARTS[name].lines(machine, share)
    for line in lines:
        print(json.dumps(line), file=printed, flush=True)


def main(
    what: Annotated[
        str, typer.Argument(help=f"{', '.join(RUNS)}; or parts, with commas between them: {', '.join(PARTS)}.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for the results; default: ${OUT} if it is set, else gpu-results.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Time after which the run is stopped.")] = 8.5,
    commit: Annotated[str, typer.Option(help="Commit to write into the results, where there is no git.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the kernels to compile and estimate the time; needs no GPU.")
    ] = False,
    show_plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only print lower bounds of times, from counted bytes and operations; needs no GPU."
        ),
    ] = False,
    part: Annotated[str, typer.Option(hidden=True)] = "",
    shard: Annotated[int, typer.Option(hidden=True)] = 0,
    shards: Annotated[int, typer.Option(hidden=True)] = 1,
    of: Annotated[str, typer.Option(hidden=True)] = "",
    arch: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Check and time the Triton kernels on this GPU, in one of three independent runs.

    headline: checks frames and ops of the model; times frames and ops, with eager PyTorch in turns, and each kernel
    against the lower bound of its time.

    checks: compares everything with float64, and repeated runs bit for bit; runs a sanitizer; times candidates of block
    sizes.

    peers: times torch.compile, FlexAttention and training steps.

    A run writes gpu-<run>.jsonl, a line as soon as it is measured, and gpu-<run>.md, a page with all tables. Each part
    runs in a separate process, so that one that fails or takes too long does not stop the others. The exit status is 1
    if a check failed or a part was left out. With TRITON_INTERPRET=1 in the environment small cases run without a GPU.

    Example: python -m benchmarks.gpu headline
    """
    if show_plan:
        print(ops.estimate(), plan.estimate(), sep="\n\n")
        return
    device = "cpu" if INTERPRETED else "cuda"
    if part:
        _child(part, (shard, shards), of, arch, device)
        return
    names = RUNS[what] if what in RUNS else names_among("WHAT", what, PARTS)
    run = what if what in RUNS else "parts"
    if dry_run:
        print(f"{run}: {', '.join(names)}\n\n{estimate(names, CORES)[0]}")
        return
    if reason := triton_backend.unavailable_reason():
        print(f"{reason}. --dry-run estimates, --plan prints floors, benchmarks.gpu.triton_aot compiles the kernels.")
        raise typer.Exit(1)
    about = facts() | ({"commit": commit} if commit else {})
    print(headline(about), file=sys.stderr)
    results = supervise.Results(out or Path(os.environ.get(OUT) or ROOT / "gpu-results"), run, about)
    try:
        with raising():
            supervise.run_parts(names, results, 60 * minutes)
    except KeyboardInterrupt as error:  # the part's processes have been stopped
        raise typer.Exit(exit_status(error)) from error
    print(results.page())
    if results.faults():
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
