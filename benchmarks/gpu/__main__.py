"""One command for a GPU: is every kernel right, and how fast is it beside everything that PyTorch offers?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console

from fermt_kernels import triton as triton_backend
from fermt_kernels.cpp import library

from ..harness import ROOT, Progress, facts, headline, names_among
from . import checks, clocks, crop, frame, frame_checks, ops, plan
from .clocks import Machine
from .work import H200, Ceilings

Lines = list[dict[str, Any]]
QUICK_SECONDS, QUICK_RUNS = 0.05, 5


class Part(NamedTuple):
    """Something to measure: the lines as they come, a table of them, and about how many seconds it takes."""

    measure: Callable[[], Iterable[dict[str, Any]]]
    table: Callable[[Lines], str]
    seconds: float


def _parts(machine: Machine, ceilings: Ceilings, minutes: float, quick: bool) -> dict[str, Part]:
    share = 0.1 if quick else 1.0
    return {
        "ops": Part(partial(ops.measure, machine, quick), partial(ops.table, ceilings=ceilings), 180 * share),
        "frame": Part(partial(frame.measure, machine, quick), frame.table, 120 * share),
        "kernels": Part(partial(plan.measure, machine, ceilings, quick), plan.report, 60 * share),
        "crop": Part(partial(crop.measure, machine), clocks.table, 15 * share),
        "compiled": Part(partial(frame.measure_compiled, machine, minutes), frame.table, 60 * minutes),
    }


def _wrong_ops(machine: Machine, runs: int) -> list[str]:
    """What is wrong with the ops here."""
    device, dry = machine.device, not machine.on_gpu
    compared, found = checks.wrong(device, triton_backend.DTYPES, small=dry)
    machine.say(f"ops: {compared} results compared with float64, {len(found)} faults")
    found += [f"opcheck: {fault}" for fault in checks.opcheck(device)]
    found += checks.wrong_crops(device)
    found += [f"not the same bits: {fault}" for fault in checks.differs(device, runs)]
    machine.say(f"ops: opcheck, crops, {runs} runs of each: {len(found)} faults in all")
    return found


def _wrong_frames(machine: Machine, runs: int) -> list[str]:
    """What is wrong with frames here."""
    device, dry, say = machine.device, not machine.on_gpu, machine.say
    dtypes = triton_backend.DTYPES[: 1 if dry else None]
    compared, found = frame_checks.wrong(device, dtypes, say, small=dry)
    say(f"frames: {compared} maps and boxes compared with float64, {len(found)} faults")
    found += frame_checks.wrong_in_tf32(device, say, small=dry)
    found += [f"not the same bits: {fault}" for fault in frame_checks.differs(device, dtypes, say, runs, small=dry)]
    say(f"frames: TF32, captured, exchanged, {runs} runs of each: {len(found)} faults in all")
    return found


CHECKS = {"check-ops": _wrong_ops, "check-frame": _wrong_frames}
CHECK_SECONDS = 90.0
NAMES = (*CHECKS, "ops", "frame", "kernels", "crop", "compiled")


def _write(stem: Path, part: Part, shared: dict[str, Any], head: str) -> str:
    """Measures a part into <stem>.jsonl, a line as soon as it is there, and <stem>.md: aside first. The table."""
    asides = {suffix: stem.with_name(f"{stem.name}{suffix}.part") for suffix in (".jsonl", ".md")}
    lines = []
    with asides[".jsonl"].open("w") as file:
        for line in part.measure():
            lines.append(line)
            file.write(json.dumps(line | shared) + "\n")
            file.flush()
    markdown = part.table(lines)
    asides[".md"].write_text(f"{head}\n\n{markdown}\n")
    for suffix, aside in asides.items():
        aside.replace(stem.with_name(f"{stem.name}{suffix}"))
    return markdown


def main(
    out: Annotated[Path, typer.Option(help="Folder for the JSON lines and the markdown tables.")] = ROOT
    / "benchmarks"
    / "results",
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(NAMES)}, with commas between.")] = ",".join(NAMES),
    minutes: Annotated[float, typer.Option(min=0, help="After which torch.compile begins with no more frames.")] = 8.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="The first case of each part, a moment each, and nothing compiled.")
    ] = False,
    show_plan: Annotated[bool, typer.Option("--plan", help="Only print the floors, counted; needs no GPU.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Small cases in Triton's interpreter (TRITON_INTERPRET=1), without a GPU.")
    ] = False,
) -> None:
    """Correctness against float64, opcheck, 100 runs bit for bit; then times beside every peer, and floors.

    Writes gpu-<name>-<part>.jsonl and .md for each part, aside first: what is stopped leaves the lines that it had in
    .jsonl.part. Exits with 1 where a check fails: no time is taken then.

    Example: python -m benchmarks.gpu --only check-frame,frame
    """
    console = Console()
    if show_plan:
        print(ops.estimate(), plan.estimate(), sep="\n\n")
        return
    chosen = names_among("--only", only, NAMES)
    if not dry_run and not torch.cuda.is_available():
        console.print("No CUDA GPU here. --plan prints floors, benchmarks.gpu.triton_aot compiles the kernels.")
        raise typer.Exit(1)
    if library.unavailable_reason() is not None and not dry_run:
        subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=ROOT, check=True)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    machine = Machine("cpu" if dry_run else "cuda", say, *[QUICK_SECONDS] * quick)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, for the peers' convolutions too
    name = "dry-run" if dry_run else torch.cuda.get_device_name()
    about = facts() | {"gpu": name, "triton": triton_backend.describe()}
    say(f"{headline(about)}\n{about['triton']}")
    if quick:
        chosen = [each for each in chosen if each != "compiled"]
    ceilings = clocks.ceilings() if machine.on_gpu else H200
    parts = _parts(machine, ceilings, minutes, quick)
    seconds = sum(parts[each].seconds if each in parts else CHECK_SECONDS for each in chosen)
    progress = Progress("checks and measurements", len(chosen), seconds, machine="an H200, estimated")
    runs = 2 if dry_run else QUICK_RUNS if quick else checks.RUNS
    found = []
    for each in (each for each in CHECKS if each in chosen):
        found += CHECKS[each](machine, runs)
        progress.step(each)
    for fault in found:
        say(fault)
    if found:
        raise typer.Exit(1)
    torch.backends.cudnn.benchmark = True  # the peers' convolutions at their best
    stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    head = f"{about['triton']}; torch {about['torch']}, Python {about['python']}, {about['date']}"
    for each in (each for each in parts if each in chosen):
        print(_write(out / f"{stem}-{each}", parts[each], about | {"ceilings": ceilings._asdict()}, head))
        progress.step(each)


if __name__ == "__main__":
    typer.run(main)
