"""`fermt convert`: turns the authors' pickled checkpoints into safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import checkpoints
from ..config import CONFIGS, named_config
from .common import check_inputs_kept, check_output, failed, say


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth.tar of the authors' code (weights under the key net).")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    config: Annotated[str, typer.Option(help=f"Model configuration of the weights: {', '.join(CONFIGS)}.")] = "fermt",
    dau: Annotated[bool, typer.Option(help="Whether the model has the Dual Attention Unit.")] = True,
) -> None:
    """Convert a pickled checkpoint to safetensors. No code pickled in the file is run."""
    check_output(target, (".safetensors",))
    check_inputs_kept({"TARGET": target}, {"CHECKPOINT": checkpoint})
    try:
        model = checkpoints.convert(checkpoint, target, named_config(config, dau=dau))
    except (OSError, ValueError) as error:
        raise failed(error) from error
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"{count:,} parameters of {config!r} in {target}")
