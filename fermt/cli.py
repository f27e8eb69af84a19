"""The command line: `fermt track`, `fermt train`, `fermt bench`, `fermt convert`, `fermt export` and `fermt data`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box as box_styles
from rich.console import Console
from rich.table import Table

from . import checkpoints
from .cli_common import console, failed, output_path
from .cli_data import data
from .cli_export import export
from .cli_track import track
from .cli_train import train
from .config import CONFIGS, named_config
from .model import build_model
from .tracking.speed import decoding, measure, ways

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="FERMT, a light-weight visual tracker.",
    pretty_exceptions_enable=False,
)


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
    video: Annotated[Path | None, typer.Option(help="Time the decoding of this video, not of a pattern.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each row.")] = 3.0,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1 ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the table to this file as JSON, too.")] = None,
) -> None:
    """How fast tracking is on this machine: the network alone, and a whole update on a frame in memory.

    Decoding a video is timed apart. Rows are measured one after the other; `python -m benchmarks.frame`, in the source
    tree, compares runtimes by turns.
    """
    output_path(json_out, (".json",))
    if threads:
        torch.set_num_threads(threads)
    try:
        model = checkpoints.load(weights, device=device) if weights else build_model(config).to(device)
        speeds = []
        for way in ways(model):
            try:
                with console.status(f"measuring {way.name}, {way.dtype}"):
                    speeds.append(measure(way, seconds))
            except ValueError as reason:
                console.print(f"{way.name}, {way.dtype}: left out, {reason}", highlight=False, markup=False)
        with console.status("decoding a video"):
            decoded = decoding(video)
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    title = f"{device}, {torch.get_num_threads()} threads, batch 1, median milliseconds"
    table = Table(title=title, box=box_styles.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("runs", "backend", "dtype"):
        table.add_column(heading, no_wrap=True)
    for heading in ("template", "crop", "network", "update", "frames/s"):
        table.add_column(heading, justify="right")
    for speed in speeds:
        parts = (speed.encode, speed.crop, speed.network, speed.update)
        table.add_row(*speed[:3], *(f"{part * 1e3:.2f}" for part in parts), f"{1 / speed.update:.0f}")
    printed = Console()
    printed.print(table)
    printed.print("Template: once a target. Update: crop and network, and the box.", highlight=False)
    what = f"a frame of {video}" if video else "a frame of a 640 x 360 MPEG-4 pattern"
    printed.print(f"Decoding {what}: {decoded * 1e3:.2f} ms, in no row above.", highlight=False)
    if json_out is not None:
        facts = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__, "decode": decoded}
        aside = json_out.with_name(f".{json_out.name}.part")
        aside.write_text(json.dumps(facts | {"rows": [speed._asdict() for speed in speeds]}, indent=1) + "\n")
        os.replace(aside, json_out)


app.command("track")(track)
app.command("export")(export)
app.command("train")(train)
app.add_typer(data, name="data")
