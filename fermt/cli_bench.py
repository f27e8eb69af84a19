"""`fermt bench`: how fast tracking is on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box as box_styles
from rich.console import Console
from rich.table import Table

from . import checkpoints
from .cli_common import console, failed, output_path
from .config import CONFIGS
from .files import write_aside
from .machine import facts, headline
from .model import FERMT, build_model
from .tracking.speed import PROTOCOL, WARM_UP, Clip, Speed, measure, open_clip, ways


def bench(
    weights: Annotated[Path | None, typer.Option(help="Weights by fermt.save; speed needs none.")] = None,
    config: Annotated[str, typer.Option(help=f"Model to build without weights: {', '.join(CONFIGS)}.")] = "fermt",
    video: Annotated[
        Path | None, typer.Option(help="Track in the first 20 frames of this video or folder, not in a pattern.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each row.")] = 3.0,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1 ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the table to this file as JSON, too.")] = None,
) -> None:
    """How fast tracking is on this machine: the network alone, a whole update, and one with decoding, batch 1.

    Frames a second of an update are as the GOT-10k toolkit counts them: the mean of 1/t, decoding excluded. Rows are
    measured one after the other; `python -m benchmarks.frame`, in the source tree, compares runtimes by turns.
    """
    output_path(json_out, (".json",))
    if threads:
        torch.set_num_threads(threads)
    try:
        model = checkpoints.load(weights, device=device) if weights else build_model(config).to(device)
        with open_clip(video) as clip:
            speeds = measured(model, clip, seconds)
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    known = facts(device)
    printed = Console()
    printed.print(f"{headline(known)}; batch 1, warm-up of {WARM_UP} frames", highlight=False)
    printed.print(speed_table(speeds))
    printed.print(definitions())
    printed.print(f"The clip is {clip.name}; decoding a frame of it takes {clip.decode * 1e3:.2f} ms.", highlight=False)
    for backend in sorted({speed.backend for speed in speeds}):
        printed.print(f"{backend}: {known['backends'][backend]}", highlight=False)
    if json_out is not None:
        about = {"batch": 1, "warm_up": WARM_UP, "clip": clip.name, "decode": clip.decode, "protocol": PROTOCOL}
        rows = [speed._asdict() for speed in speeds]
        write_aside(json_out, json.dumps(known | about | {"rows": rows}, indent=1) + "\n")


def measured(model: FERMT, clip: Clip, seconds: float) -> list[Speed]:
    """Every way to run the model, about `seconds` each; those that are not possible here are named and left out."""
    speeds = []
    for way in ways(model):
        try:
            with console.status(f"measuring {way.name}, {way.dtype}"):
                speeds.append(measure(way, clip, seconds))
        except ValueError as reason:
            console.print(f"{way.name}, {way.dtype}: left out, {reason}", highlight=False, markup=False)
    return speeds


def speed_table(speeds: Sequence[Speed]) -> Table:
    """A row for each figure, a column for each way to run the model."""
    table = Table(box=box_styles.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("")
    for speed in speeds:
        table.add_column(f"{speed.name}\n{speed.dtype}", justify="right", no_wrap=True)
    for part in ("encode", "crop", "network", "update", "with_decode"):
        table.add_row(part, "ms", *(f"{getattr(speed, part) * 1e3:.2f}" for speed in speeds))
    table.add_section()
    for part in ("network", "with_decode"):
        table.add_row(part, "frames/s", *(f"{1 / getattr(speed, part):.0f}" for speed in speeds))
    table.add_row("got10k_fps", "frames/s", *(f"{speed.got10k_fps:.0f}" for speed in speeds))
    return table


def definitions() -> Table:
    """What each figure is."""
    table = Table.grid(padding=(0, 2))
    for part, definition in PROTOCOL.items():
        table.add_row(part, definition)
    return table
