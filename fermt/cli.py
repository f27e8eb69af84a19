"""The command line: `fermt track`, `fermt bench`, `fermt convert` and `fermt export`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box as box_styles
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from . import checkpoints
from .cli_common import console, failed, load_model, output_path
from .cli_export import export
from .config import CONFIGS, named_config
from .model import build_model
from .tracking import Track, Tracker
from .tracking.speed import measure, ways
from .tracking.video import FrameSource, VideoWriter, annotate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="FERMT, a light-weight visual tracker.",
    pretty_exceptions_enable=False,
)


def _write_csv(path: Path, tracks: Sequence[Track]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("frame", "x", "y", "w", "h", "score", "lost"))
        for frame, track in enumerate(tracks):
            writer.writerow((frame, *(f"{v:.3f}" for v in track.box), f"{track.score:.4f}", int(track.lost)))


def _write_txt(path: Path, tracks: Sequence[Track]) -> None:
    path.write_text("".join(",".join(f"{value:.3f}" for value in track.box) + "\n" for track in tracks))


_BOX_WRITERS: dict[str, Callable[[Path, Sequence[Track]], None]] = {".csv": _write_csv, ".txt": _write_txt}


def write_boxes(path: Path, tracks: Sequence[Track]) -> None:
    """Writes one line a frame: `.csv` with a header, score and lost; `.txt` just x,y,w,h, as benchmarks want it."""
    aside = path.with_name(f".{path.name}.part")
    try:
        _BOX_WRITERS[path.suffix.lower()](aside, tracks)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _parse_box(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4:
        raise typer.BadParameter(f"expected four numbers x,y,w,h in pixels (such as 372,108,125,240), got {text!r}")
    return values


@app.command()
def track(
    source: Annotated[Path, typer.Argument(help="A video file, or a folder of images in the order of their names.")],
    box: Annotated[
        str, typer.Option(help="The target in the first frame: x,y,w,h in pixels (left, top, width, height).")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Weights written by fermt.save or `fermt convert`, or a packed model (.fermt).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Boxes, one line a frame: .csv (with scores) or .txt (x,y,w,h).")] = Path(
        "boxes.csv"
    ),
    video: Annotated[Path | None, typer.Option(help="Also write an annotated .mp4 here.")] = None,
    config: Annotated[str, typer.Option(help=f"Model to build without weights: {', '.join(CONFIGS)}.")] = "fermt",
    dtype: Annotated[
        str, typer.Option(help=f"What the CPU computes in: {', '.join(DTYPES)}; the weights' own if not given.")
    ] = "",
    lost_below: Annotated[float, typer.Option(help="Score under which a frame counts as lost (uncalibrated).")] = 0.0,
    backend: Annotated[str, typer.Option(help="Kernels: auto, or a name from fermt_kernels.backends().")] = "auto",
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1 ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
) -> None:
    """Follow one target through a video, and write its box in every frame."""
    first_box = _parse_box(box)
    output_path(out, tuple(_BOX_WRITERS))
    output_path(video, (".mp4",))
    if dtype and dtype not in DTYPES:
        raise typer.BadParameter(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    if threads:
        torch.set_num_threads(threads)
    try:
        frames = FrameSource(source)
        tracker = Tracker(load_model(weights, config, backend, device), dtype=DTYPES.get(dtype), lost_below=lost_below)
        tracks = _run(
            tracker, frames, first_box, video, "untrained, boxes mean nothing" if weights is None else weights.stem
        )
        write_boxes(out, tracks)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise failed(error) from error
    console.print(f"{len(tracks)} boxes in {out}" + (f", video in {video}" if video else ""), highlight=False)


def _run(tracker: Tracker, frames: FrameSource, box: Sequence[float], video: Path | None, label: str) -> list[Track]:
    columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    tracks: list[Track] = []
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console))
        writer = stack.enter_context(VideoWriter(video, frames.fps)) if video else None
        task = progress.add_task("", total=frames.count or None, speed="")
        for image in frames:
            if tracks:
                tracks.append(tracker.update(image))
            else:
                tracker.init(image, box)
                x, y, w, h = box
                tracks.append(Track((x, y, w, h), 1.0, False))
            if writer:
                writer.write(annotate(image, tracks[-1].box, f"FERMT ({label})  score {tracks[-1].score:.2f}"))
            elapsed = progress.tasks[task].elapsed
            progress.update(task, advance=1, speed=f"{len(tracks) / elapsed:.1f} frames/s" if elapsed else "")
        progress.update(task, total=len(tracks))
    return tracks


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth.tar of the authors' code (weights under the key net).")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    config: Annotated[str, typer.Option(help=f"What the weights are of: {', '.join(CONFIGS)}.")] = "fermt",
    dau: Annotated[bool, typer.Option(help="Whether the model has the Dual Attention Unit.")] = True,
) -> None:
    """Turn a pickled checkpoint into safetensors. Nothing that is pickled beside the weights is run."""
    output_path(target, (".safetensors",))
    try:
        model = checkpoints.convert(checkpoint, target, named_config(config, dau=dau))
    except (OSError, ValueError) as error:
        raise failed(error) from error
    count = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"{count:,} parameters of {config!r} in {target}", highlight=False)


@app.command()
def bench(
    weights: Annotated[Path | None, typer.Option(help="Weights by fermt.save; speed needs none.")] = None,
    config: Annotated[str, typer.Option(help=f"Model to build without weights: {', '.join(CONFIGS)}.")] = "fermt",
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each row.")] = 3.0,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1 ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the table to this file as JSON, too.")] = None,
) -> None:
    """How fast tracking is on this machine: the network alone, and a whole update on a frame in memory.

    Reading video is not in it. Rows are measured one after the other; `python -m benchmarks.frame`, in the source tree,
    compares runtimes by turns.
    """
    if threads:
        torch.set_num_threads(threads)
    try:
        model = checkpoints.load(weights, device=device) if weights else build_model(config).to(device)
        speeds = []
        for (name, dtype), make in ways(model).items():
            try:
                tracker = make()
            except ValueError as reason:
                console.print(f"{name}: left out, {reason}", highlight=False, markup=False)
                continue
            with console.status(f"measuring {name}, {dtype}"):
                speeds.append(measure(tracker, name, dtype, seconds))
    except (OSError, ValueError) as error:
        raise failed(error) from error
    table = Table(
        title=f"{device}, {torch.get_num_threads()} threads, batch 1, median milliseconds", box=box_styles.SIMPLE
    )
    for heading in ("runs", "dtype"):
        table.add_column(heading, no_wrap=True)
    for heading in ("template, once", "crop", "network", "whole update", "frames/s"):
        table.add_column(heading, justify="right")
    for speed in speeds:
        parts = (speed.encode, speed.crop, speed.network, speed.update)
        table.add_row(speed.name, speed.dtype, *(f"{part * 1e3:.2f}" for part in parts), f"{1 / speed.update:.0f}")
    Console().print(table)
    if json_out is not None:
        aside = json_out.with_name(f".{json_out.name}.part")
        aside.write_text(json.dumps([speed._asdict() for speed in speeds], indent=1) + "\n")
        os.replace(aside, json_out)


app.command("export")(export)
