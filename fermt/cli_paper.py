"""`fermt paper`: the paper's tables, and what is counted and measured here beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from .cli_bench import measured
from .cli_common import console, failed, output_path
from .evaluation.ours import KEY, Ours, read_results
from .evaluation.paper import TABLES, Timed, check_used, published, sheets
from .evaluation.sheets import LEGEND, markdown, terminal
from .files import write_aside
from .machine import facts, headline
from .model import build_model
from .tracking.speed import PROTOCOL, open_clip

WIDTH = 120  # columns that the widest table needs


def paper(
    table: Annotated[
        list[str] | None, typer.Option(help=f"A table to print: {', '.join(TABLES)}. Repeatable; all if not given.")
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A report of `fermt eval --json`: KEY=FILE, KEY being {KEY}; or a folder of KEY.json. Repeatable."
        ),
    ] = None,
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure speed, on the CPU and on a GPU if there is one.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="With --speed: time to spend on each way to run.")] = 3.0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the tables to this file as JSON, too.")] = None,
    markdown_out: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables to this file as Markdown, too.")
    ] = None,
) -> None:
    """Print the paper's tables beside our own: counts, and scores and speed where they were measured.

    A figure of ours is counted or measured, never the paper's. Parameters, multiply-adds and score pairs are counted
    anew each time; scores are of the reports that --results names; speed, of an untrained model, takes --speed.
    """
    output_path(json_out, (".json",))
    output_path(markdown_out, (".md",))
    for name in table or []:
        if name not in TABLES:
            raise typer.BadParameter(f"expected a table out of {', '.join(TABLES)}; got {name!r}")
    if threads:
        torch.set_num_threads(threads)
    try:
        reports = read_results(results or [])
        check_used(reports)
        machines, timed = _timed(seconds) if speed else ([], {})
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    fps = {kind: found.speeds[0].got10k_fps for kind, found in timed.items()}
    every = sheets(Ours(reports, fps), list(timed.values()))
    chosen = [every[name] for name in TABLES if name in (table or TABLES)]
    about = [f"{published()['paper']}, beside this package.", LEGEND, *map(headline, machines)]
    printed = Console()
    printed.width = max(printed.width, WIDTH)
    for line in about:
        printed.print(line, highlight=False, markup=False)
    for sheet in chosen:
        printed.print()
        printed.print(terminal(sheet))
        for note in sheet.notes:
            printed.print(Padding(Text(note), (0, 0, 0, 2)))
    if json_out is not None:
        said: dict[str, Any] = {"about": about, "machines": machines, "speed_protocol": PROTOCOL}
        said["tables"] = [sheet.to_dict() for sheet in chosen]
        write_aside(json_out, json.dumps(said, indent=1) + "\n")
    if markdown_out is not None:
        write_aside(markdown_out, "\n".join(("\n\n".join(about) + "\n", *map(markdown, chosen))))


def _timed(seconds: float) -> tuple[list[dict[str, Any]], dict[str, Timed]]:
    """Facts of each device, and its speeds: the packed frame in float32 first, where there is one."""
    devices = {"cpu": "cpu", **({"gpu": "cuda"} if torch.cuda.is_available() else {})}
    machines, timed = [], {}
    with open_clip() as clip:
        for kind, device in devices.items():
            known = facts(device)
            console.print(f"measuring on {known['name']}", highlight=False)
            machines.append(known)
            model = build_model("fermt").to(device)
            timed[kind] = Timed(f"{kind.upper()}: {known['name']}", measured(model, clip, seconds))
    return machines, timed
