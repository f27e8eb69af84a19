"""`fermt bench`: measures the speed of tracking on this machine."""

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

import fermt_kernels as fk
from fermt_kernels.files import atomic_write

from .. import checkpoints
from ..images import SUFFIXES
from ..machine import cache_text, facts, headline, pick_device
from ..model import FERMT, build_model
from ..overwrites import Files
from ..tracking.speed import (
    PACKED_FRAME,
    PACKED_RUNS,
    PROTOCOL,
    WARM_UP,
    Clip,
    Speed,
    fastest,
    fraction_of_peak,
    measure,
    open_clip,
    variants,
)
from .common import Config, Device, JsonOut, Threads, check_inputs_kept, check_output, console, failed, say


def bench(
    weights: Annotated[
        Path | None, typer.Option(help="Weights written by fermt.save; the speed does not depend on them.")
    ] = None,
    config: Config = "fermt",
    video: Annotated[
        Path | None,
        typer.Option(help="Video or folder of images whose first 20 frames are used, instead of a synthetic pattern."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each form of the model.")] = 3.0,
    device: Device = "auto",
    threads: Threads = 0,
    json_out: JsonOut = None,
) -> None:
    """Measure the speed of tracking on this machine, one target at a time.

    The model runs packed in each dtype, and in plain PyTorch. For each, the time of the network alone, of a whole
    update, and of an update with decoding of its frame is printed. Frames per second are the mean of 1/t, as in the
    GOT-10k toolkit. On a CPU the last lines have the instruction set, the caches, the share of the peak of
    multiply-adds that a packed frame reaches, and the dtype to use here.

    `python -m benchmarks.frame`, in the source tree, compares with other runtimes, which take turns with it.
    """
    check_output(json_out, (".json",))
    check_inputs_kept(
        {"--json": json_out}, {"--weights": weights, "--video": video and Files(video, SUFFIXES, all_read=True)}
    )
    if threads:
        torch.set_num_threads(threads)
    try:
        device = pick_device(device)
        machine = facts(device) | {"peaks": peaks(device)}
        model = checkpoints.load(weights, device=device) if weights else build_model(config).to(device)
        with open_clip(video) as clip:
            speeds = measure_all(model, clip, seconds)
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    output = Console(markup=False, highlight=False)
    output.print(f"{headline(machine)}; batch 1, warm-up of {WARM_UP} frames")
    output.print(speed_table(speeds))
    output.print(definitions())
    output.print(f"The clip is {clip.name}; decoding a frame of it takes {clip.decode * 1e3:.2f} ms.")
    for backend in sorted({speed.backend for speed in speeds}):
        output.print(f"{backend}: {machine['backends'][backend]}")
    packed = {speed.dtype: speed.network for speed in speeds if speed.name == PACKED_FRAME}
    if sizes := cache_text(machine["caches"]):
        output.print(f"Caches: {sizes}")
    for dtype, peak in machine["peaks"].items():
        if dtype in packed:
            part = fraction_of_peak(model.config, packed[dtype], peak)
            text = f"FMA peak in {dtype}: {peak / 1e9:.0f} GFLOP/s, of which the packed frame reaches {part:.0%}"
            output.print(text)
    if packed:
        output.print(fastest(packed))
    if json_out is not None:
        about = {"batch": 1, "warm_up": WARM_UP, "clip": clip.name, "decode": clip.decode, "protocol": PROTOCOL}
        rows = [speed._asdict() for speed in speeds]
        try:
            atomic_write(json_out, json.dumps(machine | about | {"rows": rows}, indent=1) + "\n")
        except OSError as error:
            raise failed(error) from error


def peaks(device: str) -> dict[str, float]:
    """Measures the FLOP/s of multiply-adds alone, by dtype; none on a GPU or without the compiled library."""
    if device != "cpu" or fk.frame.unavailable_reason(torch.float32, torch.device("cpu"), "cpp") is not None:
        return {}
    return {str(dtype).removeprefix("torch."): fk.frame.peak_flops(dtype) for dtype in PACKED_RUNS["cpu"][1]}


def measure_all(model: FERMT, clip: Clip, seconds: float) -> list[Speed]:
    """Measures each variant for about `seconds`; prints the reason for one that is not possible here."""
    speeds = []
    for variant in variants(model, clip):
        try:
            with console.status(f"measuring {variant.name}, {variant.dtype}"):
                speeds.append(measure(variant, clip, seconds))
        except ValueError as reason:
            say(f"{variant.name}, {variant.dtype}: left out, {reason}")
    return speeds


def speed_table(speeds: Sequence[Speed]) -> Table:
    """A table with a row for each quantity and a column for each variant of the model."""
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
    """A table with the definition of each quantity."""
    table = Table.grid(padding=(0, 2))
    for part, definition in PROTOCOL.items():
        table.add_row(part, definition)
    return table
