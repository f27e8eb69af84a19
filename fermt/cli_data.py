"""The commands `fermt data ...`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .cli_common import console, failed, output_path
from .config import CONFIGS, named_config
from .data.preview import AFTER, augmentation_pictures, pair_pictures
from .data.readers import MADE, READERS, open_set
from .data.sampling import MAX_GAP, PairSampler
from .data.sequences import SequenceSet
from .roots import VARIABLE, root_of
from .tracking.sheet import arrange, write_png

NAMES = (*READERS, *MADE)
MOST = 400  # pairs on a sheet
data = typer.Typer(no_args_is_help=True, help="Data sets to train on.")


@data.callback()
def _group() -> None:
    """A group, though it has one command so far."""


@data.command()
def preview(
    sets: Annotated[list[str], typer.Option("--set", help=f"A data set: {', '.join(NAMES)}. Repeatable.")],
    root: Annotated[
        list[Path] | None,
        typer.Option(help=f"Its folder: one for each --set that has files, in order; {VARIABLE}'s if none is given."),
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Its split: train, or one for each --set.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="Its weight: equal, or one for each --set.")] = None,
    only: Annotated[Path | None, typer.Option(help="File of the sequences to read of the one --set.")] = None,
    exclude: Annotated[Path | None, typer.Option(help="File of the sequences to leave out of the one --set.")] = None,
    out: Annotated[Path, typer.Option(help="The .png to write.")] = Path("pairs.png"),
    pairs: Annotated[int, typer.Option(min=1, max=MOST, help="Pairs to show, the first of the epoch.")] = 16,
    augmentations: Annotated[
        bool, typer.Option("--augmentations", help="Show one pair instead, before and after each augmentation.")
    ] = False,
    config: Annotated[str, typer.Option(help=f"Model that crops are for: {', '.join(CONFIGS)}.")] = "fermt",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    epoch: Annotated[int, typer.Option(min=0, help="Whose pairs to show.")] = 0,
    max_gap: Annotated[int, typer.Option(min=1, help="Frames between template and search region, at most.")] = MAX_GAP,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for what is read of annotations; the platform's if not given.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep nothing of what is read.")] = False,
) -> None:
    """Draw training pairs as training will: template, and search crop with the target's box, on one picture."""
    output_path(out, (".png",))
    for option, given in (("--split", split), ("--weight", weight)):
        if given and len(given) != len(sets):
            raise typer.BadParameter(f"expected one {option} for each of {len(sets)} --set, or none; got {len(given)}")
    if (only or exclude) and len(sets) > 1:
        raise typer.BadParameter(f"--only and --exclude go with one --set; got {len(sets)}")
    kept = False if no_cache else cache or True
    try:
        roots = _roots(sets, root or [])
        with console.status("reading annotations"):
            opened: list[SequenceSet] = [
                open_set(name, place, split=part, only=only, exclude=exclude, cache=kept)
                for name, place, part in zip(sets, roots, split or ["train"] * len(sets), strict=True)
            ]
        sampler = PairSampler(opened, weight or None, named_config(config), seed, max_gap=max_gap)
        with console.status("drawing pairs"):
            if augmentations:
                pictures, columns = list(augmentation_pictures(sampler, epoch)), 1 + AFTER
            else:
                pictures, columns = list(pair_pictures(sampler, epoch, pairs)), math.ceil(math.sqrt(pairs / 1.5))
            write_png(out, arrange(pictures, columns))
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    for one in opened:
        console.print(f"{one.name}: {len(one):,} sequence{'s' * (len(one) != 1)}", highlight=False)
    replaced = [f"{count} {what}" for what, count in sampler.totals().items() if count]
    if replaced:
        console.print(f"Replaced: {', '.join(replaced)}", style="bold yellow", highlight=False)
    console.print(f"{'augmentations' if augmentations else f'{pairs} pairs'} in {out}", highlight=False)


def _roots(sets: Sequence[str], roots: Sequence[Path]) -> list[Path | None]:
    """A root for each set, None for those that have none."""
    unknown = [name for name in sets if name not in NAMES]
    if unknown:
        raise typer.BadParameter(f"unknown data set {unknown[0]!r}; expected one of {', '.join(NAMES)}")
    rooted = [name for name in sets if name in READERS]
    if rooted and not roots:
        return [root_of(name, None) if name in READERS else None for name in sets]
    if len(rooted) != len(roots):
        raise typer.BadParameter(
            f"expected one --root for each of {', '.join(rooted) or 'no data sets with files'}; got {len(roots)}"
        )
    left = iter(roots)
    return [next(left) if name in READERS else None for name in sets]
