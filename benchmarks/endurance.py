"""A long track in one process: its memory, and its speed at the start and at the end."""

from __future__ import annotations

import statistics
import time
from itertools import cycle, islice
from typing import Annotated

import torch
import typer

import fermt
from fermt.tracking.sources import open_source

from .harness import CLIP, DTYPES, TARGET, Out, Threads, append, counted, facts, headline, names_among, run_command
from .memory import resident

CLIP_FRAMES = 32  # frames of the clip held in memory, shown over and over
SETTLING_FRAMES = 200  # frames after which memory should not grow any more
QUICK_FRAMES, FRAME_SECONDS = 1000, 0.035


def main(
    frames: Annotated[int, typer.Option(min=2 * SETTLING_FRAMES, help="Number of frames to track.")] = 10_000,
    config: Annotated[str, typer.Option(help=f"One of {', '.join(fermt.CONFIGS)}.")] = "fermt",
    dtype: Annotated[str, typer.Option(help=f"Dtype of the packed model: {' or '.join(DTYPES)}.")] = "float32",
    threads: Threads = 0,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_FRAMES} frames: under a minute.")] = False,
    out: Out = None,
) -> None:
    """Track one target over many frames and print peak memory, its growth, and the speed early and late. Linux only.

    Growth is the memory that the process gained between the 200th frame and the last. The clip's frames are read
    before.

    Example: python -m benchmarks.endurance --quick
    """
    frames = min(frames, QUICK_FRAMES) if quick else frames
    (dtype,) = names_among("--dtype", dtype, DTYPES)[:1]
    if threads:
        torch.set_num_threads(threads)
    about = facts() | {"config": config, "dtype": dtype}
    print(headline(about))
    torch.manual_seed(0)
    images = list(islice(open_source(CLIP), CLIP_FRAMES))
    tracker = fermt.Tracker(fermt.build_model(config), dtype=DTYPES[dtype])
    tracker.init(images[0], TARGET)
    seconds, settled = [], resident("VmRSS")
    todo = counted(islice(cycle(images), frames), "tracking", "frames", frames, frames * FRAME_SECONDS)
    for i, image in enumerate(todo):
        start = time.perf_counter()
        tracker.update(image)
        seconds.append(time.perf_counter() - start)
        if i == SETTLING_FRAMES:
            settled = resident("VmRSS")
    tenth = max(1, frames // 10)
    peak, growth = resident("VmHWM"), resident("VmRSS") - settled
    first, last = (statistics.median(part) for part in (seconds[:tenth], seconds[-tenth:]))
    print(f"{frames} frames, {dtype}: peak memory {peak / 2**20:.0f} MiB (torch's libraries included),")
    print(f"growth after frame {SETTLING_FRAMES} {growth / 2**10:.0f} KiB;")
    print(f"median frame {first * 1e3:.2f} ms in the first tenth, {last * 1e3:.2f} ms in the last.")
    line = {"frames": frames, "peak_bytes": peak, "growth_bytes": growth, "first_tenth": first, "last_tenth": last}
    append(out, [{"benchmark": "endurance", **line}], about)


if __name__ == "__main__":
    run_command(main)
