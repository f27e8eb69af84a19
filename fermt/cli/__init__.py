"""Command-line interface: `app` is the command `fermt`, with one module for each subcommand."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from .. import signals
from . import bench, convert, data, eval, export, pack, track, train
from .common import failed, help_text, interrupted

__all__ = ["app"]


class StoppableGroup(TyperGroup):
    """Runs subcommands so that SIGINT, SIGTERM and SIGHUP end them cleanly, with status 128 + the signal's number.

    An OSError ends them with its message instead of a traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):  # prints names of files that are not UTF-8 with escapes
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with signals.raising():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise interrupted(error) from error
        except BrokenPipeError:  # the reader of the output has closed it, as `head` does
            raise
        except OSError as error:  # a name that is too long, a folder that may not be looked into ...
            raise failed(error) from error


app = typer.Typer(
    cls=StoppableGroup,
    no_args_is_help=True,
    add_completion=False,
    help="FERMT, a light-weight visual tracker.",
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "track": track.track,
    "bench": bench.bench,
    "train": train.train,
    "eval": eval.evaluate_tracker,
    "pack": pack.pack,
    "export": export.export,
    "convert": convert.convert,
}
for _name, _command in COMMANDS.items():
    app.command(_name, help=help_text(_command))(_command)
app.add_typer(data.app, name="data")
