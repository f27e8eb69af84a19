"""What the command line's files share: the console, checked options, the model, and how an error ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from rich.console import Console

from fermt_kernels.frame import PackedModel

from . import checkpoints
from .model import FERMT, build_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # to run in
INTERRUPTED = 130  # exit status, as shells have it
UNTRAINED = "No weights given: the network is untrained (seed 0), so its boxes mean nothing. Use --weights."

console = Console(stderr=True)


def failed(error: BaseException) -> typer.Exit:
    """Prints what went wrong, without a trace, and gives what ends the command."""
    console.print(f"Error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    return typer.Exit(1)


def output_path(value: Path | None, suffixes: Sequence[str]) -> None:
    """Refuses a file to write that has another ending, or no folder to lie in."""
    if value is not None and value.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"expected a name that ends in {' or '.join(suffixes)}, got {str(value)!r}")
    if value is not None and not value.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(value.parent)!r} to write to")


def load_model(weights: Path | None, config: str, backend: str, device: str) -> FERMT | PackedModel:
    """The model in a file, packed or not, or an untrained one, with a warning, where there is none."""
    if weights is not None:
        return checkpoints.load_any(weights, backend=backend, device=device)
    console.print(UNTRAINED, style="bold yellow", highlight=False)
    torch.manual_seed(0)
    return build_model(config, backend=backend).to(device)
