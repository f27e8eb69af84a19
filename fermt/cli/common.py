"""Helpers shared by the subcommands: the console, option types, checks of options, loading the model, errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from fermt_kernels.frame import PackedModel

from .. import checkpoints
from ..config import CONFIGS
from ..model import FERMT, build_model
from ..overwrites import Files, Place, check_overwrites
from ..roots import ROOTS_VARIABLE, no_folder, roots
from ..signals import exit_status
from ..weights import DEFAULT, SHIPPED

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # the model can run in these
UNTRAINED = "No weights for {config}: the network is untrained (seed 0), so its boxes mean nothing. Use --weights."
BUILT_IN = "Weights: {name}, {about}."
DEFAULT_CONFIG = "fermt"  # the configuration of the weights that come with the package
DATASET_FORM = f"NAME=FOLDER, or NAME alone if {ROOTS_VARIABLE} has its folder"

MOST_THREADS = 1024  # a million would take all memory before an error

# Options that several commands have.
Config = Annotated[
    str, typer.Option(help=f"Model if --weights is not given (untrained, except fermt): {', '.join(CONFIGS)}.")
]
Device = Annotated[str, typer.Option(help="Where to run: auto (a GPU if there is one), cpu, cuda, cuda:1 ...")]
Backend = Annotated[
    str, typer.Option(help="Kernels: auto, or a name from fermt_kernels.backends(); reference is plain PyTorch.")
]
Dtype = Annotated[str, typer.Option(help=f"Dtype to compute in: {', '.join(DTYPES)}; default: that of the weights.")]
Threads = Annotated[int, typer.Option(min=0, max=MOST_THREADS, help="CPU threads; 0: PyTorch's default.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Also write the results to this file as JSON.")]

console = Console(stderr=True, markup=False, highlight=False)  # names of files have brackets


class Dataset(NamedTuple):
    """A data set named on the command line, and the folder given with it, if any."""

    name: str
    folder: Path | None

    @property
    def place(self) -> Path | None:
        """The folder given, or the one in the environment, or None."""
        found = self.folder or roots().get(self.name)
        return Path(found) if found else None

    @property
    def root(self) -> Path:
        """The folder given, or the one in the environment; ValueError if there is neither."""
        if self.place is None:
            raise no_folder([self.name])
        return self.place

    def files(self, suffixes: Collection[str]) -> Files | None:
        """The files with these suffixes in its folder, if there is one."""
        return Files(self.place, suffixes) if self.place else None


def parse_dataset(text: str, allowed: Collection[str]) -> Dataset:
    """Parses NAME or NAME=FOLDER; typer.BadParameter if the form or the name is wrong."""
    name, equals, folder = text.partition("=")
    if not name or bool(equals) != bool(folder):
        raise typer.BadParameter(f"--dataset: expected {DATASET_FORM}; got {text!r}")
    check_choice("dataset", name, allowed)
    return Dataset(name, Path(folder) if folder else None)


def check_choice(option: str, value: str, allowed: Collection[str]) -> None:
    """Raises typer.BadParameter unless `value` is one of `allowed`."""
    if value not in allowed:
        raise typer.BadParameter(f"{option} must be one of {', '.join(filter(None, allowed))}; got {value!r}")


def check_output(path: Path | None, suffixes: Sequence[str]) -> None:
    """Raises typer.BadParameter if the output file has another suffix or is a folder, or its folder does not exist."""
    if path is not None and path.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"expected a name that ends in {' or '.join(suffixes)}, got {str(path)!r}")
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"expected the name of a file, got that of a folder, {str(path)!r}")
    if path is not None and path.exists() and not path.is_file():
        raise typer.BadParameter(f"expected the name of a file, got that of a pipe or device, {str(path)!r}")
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(path.parent)!r} to write to")


def check_inputs_kept(outputs: Mapping[str, Place], inputs: Mapping[str, Place | Files]) -> None:
    """Raises typer.BadParameter if a file to be written is one that is read; see `fermt.overwrites`."""
    try:
        check_overwrites(outputs, inputs)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def failed(error: BaseException) -> typer.Exit:
    """Prints an error without a traceback and returns the exception that ends the command with status 1."""
    say(f"Error: {error}", "bold red")
    return typer.Exit(1)


def interrupted(error: KeyboardInterrupt, text: str = "Interrupted.") -> typer.Exit:
    """Prints a line and returns the exception that ends the command after a signal, with status 128 + its number."""
    say(text, "bold yellow")
    return typer.Exit(exit_status(error))


def say(text: str, style: str | None = None) -> None:
    """Prints a line to stderr as it is, without wrapping or highlighting."""
    console.print(text, style=style, soft_wrap=True)


def help_text(command: Callable[..., object]) -> str:
    """The docstring of a command with each paragraph on one line, so that the terminal decides where lines end."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def print_wide(table: Table) -> None:
    """Prints a table to stdout without cutting its cells: where it is too wide, the terminal wraps its lines."""
    output = Console()
    width = output.measure(table, options=output.options.update(max_width=1000)).maximum
    Console(width=max(output.width, width)).print(table)


def load_model(weights: Path | None, config: str, backend: str, device: str) -> FERMT | PackedModel:
    """Loads the model of a file, packed or not, or by name; without weights, the package's own for `DEFAULT_CONFIG`.

    Any other configuration without weights is built untrained. What is not from a file is said in one line.
    """
    if weights is not None:
        return checkpoints.load_any(weights, backend=backend, device=device)
    if config == DEFAULT_CONFIG:
        say(BUILT_IN.format(name=DEFAULT, about=SHIPPED[DEFAULT]))
        return checkpoints.load(DEFAULT, backend=backend, device=device)
    say(UNTRAINED.format(config=config), "bold yellow")
    torch.manual_seed(0)
    return build_model(config, backend=backend).to(device)


def label_of(weights: Path | None, config: str) -> str:
    """The name of the weights that `load_model` loads, for pictures."""
    if weights is not None:
        return weights.stem
    return DEFAULT if config == DEFAULT_CONFIG else "untrained, boxes mean nothing"
