"""`python -m tools.paper`: prints the paper's tables beside our counts, scores and speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fermt.cli.bench import measure_all
from fermt.cli.common import JsonOut, Threads, check_inputs_kept, check_output, console, failed
from fermt.machine import facts, headline
from fermt.model import build_model
from fermt.tracking.speed import PROTOCOL, open_clip
from fermt_kernels.files import atomic_write

from .measured import KEY, Measured, read_results
from .paper_format import LEGEND, markdown, terminal
from .tables import TABLES, Timed, build_tables, check_used, published

WIDTH = 120  # columns that the widest table needs
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    table: Annotated[
        list[str] | None, typer.Option(help=f"Table to print, one of {', '.join(TABLES)}; default: all. Repeatable.")
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Report of `fermt eval --json`: KEY=FILE, KEY being {KEY}; or a folder of KEY.json. Repeatable."
        ),
    ] = None,
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure speed, on the CPU and on a GPU if there is one.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="With --speed: time to spend on each form of the model.")
    ] = 3.0,
    threads: Threads = 0,
    json_out: JsonOut = None,
    markdown_out: Annotated[
        Path | None, typer.Option("--markdown", help="Also write the tables to this file as Markdown.")
    ] = None,
) -> None:
    """Print the paper's tables beside ours: counts, and scores and speed where they were measured.

    Our figures are counted or measured, never copied from the paper. Parameters, multiply-adds and score pairs are
    counted each time; scores come from the reports given with --results; speed, of an untrained model, needs --speed.
    """
    check_output(json_out, (".json",))
    check_output(markdown_out, (".md",))
    check_inputs_kept(
        {"--json": json_out, "--markdown": markdown_out},
        {f"--results {text}": text.rpartition("=")[2] for text in results or []},
    )
    for name in table or []:
        if name not in TABLES:
            raise typer.BadParameter(f"expected a table out of {', '.join(TABLES)}; got {name!r}")
    if threads:
        torch.set_num_threads(threads)
    try:
        reports = read_results(results or [])
        check_used(reports)
        machines, timed = _measure_speed(seconds) if speed else ([], {})
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    fps = {kind: found.speeds[0].got10k_fps for kind, found in timed.items()}
    tables = build_tables(Measured(reports, fps), list(timed.values()))
    chosen = [tables[name] for name in TABLES if name in (table or TABLES)]
    about = [f"{published()['paper']}, beside this package.", LEGEND, *map(headline, machines)]
    output = Console()
    output.width = max(output.width, WIDTH)
    for line in about:
        output.print(line, highlight=False, markup=False)
    for one in chosen:
        output.print()
        output.print(terminal(one))
        for note in one.notes:
            output.print(Padding(Text(note), (0, 0, 0, 2)))
    if json_out is not None:
        content: dict[str, Any] = {"about": about, "machines": machines, "speed_protocol": PROTOCOL}
        content["tables"] = [one.to_dict() for one in chosen]
        atomic_write(json_out, json.dumps(content, indent=1) + "\n")
    if markdown_out is not None:
        atomic_write(markdown_out, "\n".join(("\n\n".join(about) + "\n", *map(markdown, chosen))))


def _measure_speed(seconds: float) -> tuple[list[dict[str, Any]], dict[str, Timed]]:
    """Facts and speeds of each device; the first speed is that of the packed frame in float32, if there is one."""
    devices = {"cpu": "cpu", **({"gpu": "cuda"} if torch.cuda.is_available() else {})}
    machines, timed = [], {}
    with open_clip() as clip:
        for kind, device in devices.items():
            machine = facts(device)
            console.print(f"measuring on {machine['name']}", highlight=False)
            machines.append(machine)
            model = build_model("fermt").to(device)
            timed[kind] = Timed(f"{kind.upper()}: {machine['name']}", measure_all(model, clip, seconds))
    return machines, timed


if __name__ == "__main__":
    app(prog_name="python -m tools.paper")
