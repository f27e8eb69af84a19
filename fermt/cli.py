"""The command line: `fermt track`, `fermt bench`, `fermt convert` and `fermt export`."""

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
from .cli_export import export
from .cli_track import track
from .config import CONFIGS, named_config
from .model import build_model
from .tracking.speed import measure, ways

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


app.command("track")(track)
app.command("export")(export)
