"""The command `fermt train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from .cli_common import INTERRUPTED, console, failed
from .config import CONFIGS
from .roots import VARIABLE, roots

if TYPE_CHECKING:
    from .training import TrainConfig, World


def train(
    config: Annotated[
        str,
        typer.Option(
            help="What to train and how: paper, paper-got10k, synthetic, synthetic-tiny, or a .json or .yaml file."
        ),
    ] = "synthetic-tiny",
    out: Annotated[Path, typer.Option(help="Folder for weights, metrics and states; made if it is not there.")] = Path(
        "run"
    ),
    root: Annotated[
        list[str] | None,
        typer.Option(help=f"A data set's folder: got10k=/data/got10k; {VARIABLE}'s if not given. Repeatable."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a field: epochs=10, amp=bf16, model_options.dim=96 ... Repeatable."),
    ] = None,
    model: Annotated[str, typer.Option(help=f"Train this model instead: {', '.join(CONFIGS)}.")] = "",
    dau: Annotated[
        bool | None, typer.Option("--dau/--no-dau", help="With or without the Dual Attention Unit.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 ...")] = "auto",
    backend: Annotated[str, typer.Option(help="Kernels: auto, or a name from fermt_kernels.backends().")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume/--fresh", help="Go on with the run in --out, if there is one, or delete it and start."),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, check the data, end.")] = False,
) -> None:
    """Train a tracker, and write weights.safetensors for `fermt track --weights`.

    To see it work, on made-up data in minutes: fermt train --out demo

    The paper's: fermt train --config paper --root got10k=... --root lasot=... --root trackingnet=... --root coco=...

    The same on four GPUs: torchrun --nproc-per-node 4 -m fermt train ... (a batch is divided among the processes).

    A run that was cut off goes on where it was when the same command is given again. Ctrl-C saves first; status 130.
    """
    from .training import joined, read_config  # it takes a second, which other commands should not wait

    changes = [f"model={model}"] if model else []
    changes += [] if dau is None else [f"model_options.dau={str(dau).lower()}"]
    changes += [f"roots.{name}" for name in root or []]
    if threads:
        torch.set_num_threads(threads)
    try:
        settings = _with_roots(read_config(config, [*changes, *(change or [])]))
        with joined(device) as world:
            _run(settings, out, world, backend, resume, dry_run)
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    except KeyboardInterrupt as error:
        console.print("Interrupted. The same command goes on from the last state saved.", style="bold yellow")
        raise typer.Exit(INTERRUPTED) from error


def _with_roots(settings: TrainConfig) -> TrainConfig:
    """The environment's folders for those data sets whose own nobody has given."""
    needed = {*settings.data, *settings.validation} - set(settings.roots)
    found = {name: folder for name, folder in roots().items() if name in needed}
    return dataclasses.replace(settings, roots=settings.roots | found)


def _run(settings: TrainConfig, out: Path, world: World, backend: str, resume: bool, dry_run: bool) -> None:
    from .training import Trainer
    from .training.sources import open_sources
    from .training.state import BEST, WEIGHTS, clear

    sources = open_sources(settings, world)
    first = world.rank == 0
    if first:
        for line in _plan(settings, world, backend, sources.sequences):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if dry_run:
        return
    if first and not resume:
        clear(out)
    world.wait()
    trainer = Trainer(
        settings, sources.train, sources.held_out, out, world, backend=backend, console=console if first else None
    )
    if first and trainer.progress.total:
        console.print(f"Goes on after step {trainer.progress.total} of {trainer.display.total}.", highlight=False)
    trainer.run()
    if first:
        best = f"; the best in validation in {out / BEST}" if (out / BEST).exists() else ""
        console.print(f"Weights in {out / WEIGHTS}{best}", highlight=False, markup=False, soft_wrap=True)


def _plan(settings: TrainConfig, world: World, backend: str, sequences: dict[str, int]) -> list[str]:
    """What is going to be done, a line a fact."""
    from .training.trainer import initial_model

    model = settings.model_config()
    count = sum(parameter.numel() for parameter in initial_model(settings, backend).parameters())
    unit = "with" if model.dau else "without"
    total = sum(settings.data.values())
    data = ", ".join(
        f"{name} {share / total:.0%}" + (f" ({sequences[name]} sequences)" if name in sequences else "")
        for name, share in settings.data.items()
    )
    weights = f"from {settings.pretrained}" if settings.pretrained else f"untrained, seed {settings.seed}"
    part = settings.parts(world.size)
    return [
        f"model     {settings.model}, {count:,} parameters, {len(model.patterns)} blocks of {model.dim}, {unit} Dual "
        f"Attention Unit, {model.head} head; {weights}",
        f"data      {data}",
        f"steps     {settings.epochs} epochs x {settings.steps_per_epoch} of {settings.batch} pairs "
        f"({world.size} processes x {settings.accumulate} parts x {part})",
        f"AdamW     lr {settings.lr:g}, backbone x {settings.backbone_lr_factor:g}; x {settings.drop_factor:g} after "
        f"{settings.drop_epoch} epochs; weight decay {settings.weight_decay:g}, clipped at {settings.clip:g}",
        f"runs on   {world.device}, backend {backend}, amp {settings.amp}, {torch.get_num_threads()} threads, "
        f"{settings.workers} workers",
    ]
