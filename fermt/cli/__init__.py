"""Command-line interface: `app` is the command `fermt`, with one module for each subcommand."""

from __future__ import annotations

import typer

from . import bench, convert, data, eval, export, pack, track, train

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="FERMT, a light-weight visual tracker.",
    pretty_exceptions_enable=False,
)

app.command("track")(track.track)
app.command("eval")(eval.evaluate_tracker)
app.command("pack")(pack.pack)
app.command("train")(train.train)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.command("convert")(convert.convert)
app.add_typer(data.app, name="data")
