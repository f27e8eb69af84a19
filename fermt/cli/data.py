"""`fermt data ...`: commands for training data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ..config import CONFIGS, named_config
from ..data.preview import EXAMPLES, augmentation_pictures, pair_pictures
from ..data.sampling import MAX_GAP, PairSampler
from ..data.sequences import SequenceSet
from ..datasets import GENERATED, TRAINING_FILES, TRAINING_SETS, open_set
from ..overwrites import Files
from ..tracking.sheet import arrange, write_png
from .common import DATASET_FORM, check_inputs_kept, check_output, console, failed, parse_dataset, say

NAMES = (*TRAINING_SETS, *GENERATED)
MOST_PAIRS = 400
app = typer.Typer(no_args_is_help=True, help="Inspect training data.")


@app.callback()
def _group() -> None:
    """Makes `preview` a subcommand although it is the only one."""


@app.command()
def preview(
    dataset: Annotated[
        list[str], typer.Option(help=f"Data set, one of {', '.join(NAMES)}: {DATASET_FORM}. Repeatable.")
    ],
    split: Annotated[list[str] | None, typer.Option(help="Split, one for each --dataset; default: train.")] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="Weight, one for each --dataset; default: all equal.")
    ] = None,
    only: Annotated[
        Path | None,
        typer.Option(help="File with the names of the sequences to use, one per line; for a single --dataset."),
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="File with the names of the sequences to leave out; for a single --dataset.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The .png to write.")] = Path("pairs.png"),
    pairs: Annotated[int, typer.Option(min=1, max=MOST_PAIRS, help="Number of pairs, the first of the epoch.")] = 16,
    augmentations: Annotated[
        bool, typer.Option("--augmentations", help="Show one pair before and after each augmentation instead.")
    ] = False,
    config: Annotated[str, typer.Option(help=f"Model to cut the crops for: {', '.join(CONFIGS)}.")] = "fermt",
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    epoch: Annotated[int, typer.Option(min=0, help="Epoch to draw the pairs of.")] = 0,
    max_gap: Annotated[int, typer.Option(min=1, help="Most frames between template and search region.")] = MAX_GAP,
    cache: Annotated[
        Path | None, typer.Option(help="Folder to cache annotations in; default: the platform's cache folder.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do not cache annotations.")] = False,
) -> None:
    """Write a picture of training pairs, drawn as in training: templates, and search regions with the target's box."""
    check_output(out, (".png",))
    chosen = [parse_dataset(text, NAMES) for text in dataset]
    for option, values in (("--split", split), ("--weight", weight)):
        if values and len(values) != len(chosen):
            raise typer.BadParameter(f"expected one {option} for each of {len(chosen)} --dataset; got {len(values)}")
    if (only or exclude) and len(chosen) > 1:
        raise typer.BadParameter(f"--only and --exclude need a single --dataset; got {len(chosen)}")
    inputs: dict[str, Path | Files | None] = {"--only": only, "--exclude": exclude}
    inputs |= {f"--dataset {one.name}": one.files(TRAINING_FILES) for one in chosen if one.name not in GENERATED}
    check_inputs_kept({"--out": out}, inputs)
    kept = False if no_cache else cache or True
    try:
        with console.status("reading annotations"):
            sets: list[SequenceSet] = [
                open_set(
                    one.name,
                    one.folder if one.name in GENERATED else one.root,
                    split=part,
                    only=only,
                    exclude=exclude,
                    cache=kept,
                )
                for one, part in zip(chosen, split or ["train"] * len(chosen), strict=True)
            ]
        sampler = PairSampler(sets, weight or None, named_config(config), seed, max_gap=max_gap)
        with console.status("drawing pairs"):
            if augmentations:
                pictures, columns = list(augmentation_pictures(sampler, epoch)), 1 + EXAMPLES
            else:
                pictures, columns = list(pair_pictures(sampler, epoch, pairs)), math.ceil(math.sqrt(pairs / 1.5))
            write_png(out, arrange(pictures, columns))
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    for one in sets:
        say(f"{one.name}: {len(one):,} sequence{'s' * (len(one) != 1)}")
    replaced = [f"{count} {what}" for what, count in sampler.totals().items() if count]
    if replaced:
        say(f"Replaced: {', '.join(replaced)}", "bold yellow")
    say(f"{'augmentations' if augmentations else f'{pairs} pairs'} in {out}")
