"""The command line: a file for each command, or group of commands, and here the short ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import checkpoints
from .cli_bench import bench
from .cli_common import console, failed, output_path
from .cli_data import data
from .cli_eval import evaluation
from .cli_export import export
from .cli_pack import pack
from .cli_paper import paper
from .cli_track import track
from .cli_train import train
from .config import CONFIGS, named_config

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


app.command("track")(track)
app.command("eval")(evaluation)
app.command("bench")(bench)
app.command("export")(export)
app.command("train")(train)
app.command("paper")(paper)
app.add_typer(data, name="data")
app.add_typer(pack, name="pack")
