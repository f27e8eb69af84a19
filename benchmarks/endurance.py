"""A long track in one process: its memory, and its speed at the end against that at the start."""

from __future__ import annotations

import json
import statistics
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import torch
import typer

import fermt
from fermt.tracking.sources import open_source

from . import machine
from .latency import CLIP, TARGET
from .progress import counted

KEPT = 32  # frames of the clip held in memory, shown over and over
SETTLED = 200  # frames after which memory should not grow any more
QUICK_FRAMES, FRAME_SECONDS = 1000, 0.02
STATUS = Path("/proc/self/status")


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at its highest (Linux)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(
    frames: Annotated[int, typer.Option(min=2 * SETTLED, help="How many frames to track.")] = 10_000,
    config: Annotated[str, typer.Option(help=f"One of {', '.join(fermt.CONFIGS)}.")] = "fermt",
    dtype: Annotated[str, typer.Option(help="Of the packed frame: float32 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_FRAMES} frames: half a minute.")] = False,
    out: Annotated[Path | None, typer.Option(help="Append one JSON line to this file.")] = None,
) -> None:
    """Tracks one target over many frames and prints peak memory, its growth, and the speed early and late.

    Growth is what the process gained between the 200th frame and the last; the clip's frames are read beforehand.
    """
    frames = min(frames, QUICK_FRAMES) if quick else frames
    if not STATUS.exists():
        raise typer.BadParameter(f"this needs {STATUS}, which Linux has")
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = list(islice(open_source(CLIP), KEPT))
    tracker = fermt.Tracker(fermt.build_model(config), dtype=getattr(torch, dtype))
    tracker.init(images[0], TARGET)
    seconds, settled = [], 0
    todo = counted(islice(cycle(images), frames), "frames tracked", frames, frames * FRAME_SECONDS)
    for i, image in enumerate(todo):
        start = time.perf_counter()
        tracker.update(image)
        seconds.append(time.perf_counter() - start)
        if i == SETTLED:
            settled = memory("VmRSS")
    tenth = max(1, frames // 10)
    result = {
        "frames": frames,
        "peak_bytes": memory("VmHWM"),
        "growth_bytes": memory("VmRSS") - settled,
        "first_tenth": statistics.median(seconds[:tenth]),
        "last_tenth": statistics.median(seconds[-tenth:]),
    }
    facts = machine.facts() | {"config": config, "dtype": dtype}
    print(machine.headline(facts))
    print(f"{frames} frames, {dtype}: peak memory {result['peak_bytes'] / 2**20:.0f} MiB (torch's libraries included),")
    print(f"growth after frame {SETTLED} {result['growth_bytes'] / 2**10:.0f} KiB;")
    first, last = (result[key] * 1e3 for key in ("first_tenth", "last_tenth"))
    print(f"median frame {first:.2f} ms in the first tenth, {last:.2f} ms in the last.")
    if out is not None:
        with out.open("a") as file:
            file.write(json.dumps({"benchmark": "endurance"} | result | facts) + "\n")


if __name__ == "__main__":
    typer.run(main)
