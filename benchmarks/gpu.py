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

from . import (
    gpu_checks,
    gpu_crop,
    gpu_frame,
    gpu_frame_checks,
    gpu_frame_plan,
    gpu_ops,
    gpu_runners,
    gpu_timing,
    machine,
    roofline,
)

ROOT = Path(__file__).parents[1]
Lines = list[dict[str, Any]]


class Part(NamedTuple):
    """Something to measure: the lines as they come, and a markdown table of them."""

    measure: Callable[[], Iterable[dict[str, Any]]]
    table: Callable[[Lines], str]


def _parts(device: str, ceilings: roofline.Ceilings, console: Console, minutes: float) -> dict[str, Part]:
    return {
        "ops": Part(partial(gpu_ops.measure, device, console), partial(gpu_ops.table, ceilings=ceilings)),
        "frame": Part(partial(gpu_frame.measure, device, console), gpu_frame.table),
        "kernels": Part(partial(gpu_frame_plan.measure, device, ceilings, console), gpu_frame_plan.report),
        "crop": Part(partial(gpu_crop.measure, device, console), gpu_runners.table),
        "compiled": Part(partial(gpu_frame.measure_compiled, device, console, minutes), gpu_frame.table),
    }


def _wrong_ops(device: str, console: Console) -> list[str]:
    """What is wrong with the ops here."""
    dry, say = device != "cuda", partial(console.print, highlight=False, markup=False, soft_wrap=True)
    compared, found = gpu_checks.wrong(device, triton_backend.DTYPES, small=dry)
    say(f"ops: {compared} results compared with float64, {len(found)} faults")
    found += [f"opcheck: {fault}" for fault in gpu_checks.opcheck(device)]
    found += gpu_checks.wrong_crops(device)
    runs = 2 if dry else gpu_checks.RUNS
    found += [f"not the same bits: {fault}" for fault in gpu_checks.differs(device, runs)]
    say(f"ops: opcheck, crops, {runs} runs of each: {len(found)} faults in all")
    return found


def _wrong_frames(device: str, console: Console) -> list[str]:
    """What is wrong with frames here."""
    dry, say = device != "cuda", partial(console.print, highlight=False, markup=False, soft_wrap=True)
    dtypes, runs = (triton_backend.DTYPES[:1], 1) if dry else (triton_backend.DTYPES, gpu_frame_checks.RUNS)
    compared, found = gpu_frame_checks.wrong(device, dtypes, say, small=dry)
    say(f"frames: {compared} maps and boxes compared with float64, {len(found)} faults")
    found += gpu_frame_checks.wrong_in_tf32(device, say, small=dry)
    found += [f"not the same bits: {fault}" for fault in gpu_frame_checks.differs(device, dtypes, say, runs, small=dry)]
    say(f"frames: TF32, captured, exchanged, {runs} runs of each: {len(found)} faults in all")
    return found


CHECKS = {"check-ops": _wrong_ops, "check-frame": _wrong_frames}
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
    plan: Annotated[bool, typer.Option("--plan", help="Only print the floors, counted; needs no GPU.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Small cases in Triton's interpreter (TRITON_INTERPRET=1), without a GPU.")
    ] = False,
) -> None:
    """Correctness against float64, opcheck, 100 runs bit for bit; then times beside every peer, and floors.

    Writes gpu-<name>-<part>.jsonl and .md for each part, aside first: what is stopped leaves the lines that it had in
    .jsonl.part. Exits with 1 where a check fails: no time is taken then.
    """
    console = Console()
    if plan:
        print(gpu_ops.estimate(), gpu_frame_plan.estimate(), sep="\n\n")
        return
    chosen = only.split(",")
    if unknown := [name for name in chosen if name not in NAMES]:
        raise typer.BadParameter(f"--only takes some of {', '.join(NAMES)}, with commas between; got {unknown[0]!r}")
    if not dry_run and not torch.cuda.is_available():
        console.print("No CUDA GPU here. --plan prints floors; python -m benchmarks.triton_aot compiles the kernels.")
        raise typer.Exit(1)
    if library.unavailable_reason() is not None and not dry_run:
        subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=ROOT, check=True)
    device = "cpu" if dry_run else "cuda"
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, for the peers' convolutions too
    name = "dry-run" if dry_run else torch.cuda.get_device_name()
    facts = machine.facts() | {"gpu": name, "triton": triton_backend.describe()}
    console.print(machine.headline(facts), facts["triton"], sep="\n", highlight=False, soft_wrap=True)
    found = [fault for each in CHECKS if each in chosen for fault in CHECKS[each](device, console)]
    for fault in found:
        console.print(fault, highlight=False, markup=False, soft_wrap=True)
    if found:
        raise typer.Exit(1)
    chosen = [each for each in chosen if each not in CHECKS]
    if not chosen:
        return
    torch.backends.cudnn.benchmark = True  # the peers' convolutions at their best
    ceilings = roofline.H200 if dry_run else gpu_timing.ceilings()
    stem = "gpu-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    head = f"{facts['triton']}; torch {facts['torch']}, Python {facts['python']}, {facts['date']}"
    parts = _parts(device, ceilings, console, minutes)
    for each in chosen:
        print(_write(out / f"{stem}-{each}", parts[each], facts | {"ceilings": ceilings._asdict()}, head))


if __name__ == "__main__":
    typer.run(main)
