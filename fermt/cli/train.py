"""`fermt train`: trains a tracker."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from ..config import CONFIGS
from ..locks import locked
from ..roots import roots
from .common import (
    DATASET_FORM,
    Backend,
    Device,
    Threads,
    check_inputs_kept,
    console,
    failed,
    interrupted,
    parse_dataset,
    say,
)

if TYPE_CHECKING:
    from ..training import TrainConfig, World


def train(
    config: Annotated[
        str,
        typer.Option(
            help="Training configuration: paper, paper-got10k, synthetic, synthetic-tiny, free-images, "
            "free-images-half, or a .json or .yaml file."
        ),
    ] = "synthetic-tiny",
    out: Annotated[Path, typer.Option(help="Folder for weights, metrics and states; created if needed.")] = Path("run"),
    dataset: Annotated[
        list[str] | None, typer.Option(help=f"Folder of a data set that the configuration names: {DATASET_FORM}.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a field: epochs=10, amp=bf16, model_options.dim=96 ... Repeatable."),
    ] = None,
    model: Annotated[
        str, typer.Option(help=f"Model to train, instead of the configuration's: {', '.join(CONFIGS)}.")
    ] = "",
    dau: Annotated[
        bool | None, typer.Option("--dau/--no-dau", help="With or without the Dual Attention Unit.", show_default=False)
    ] = None,
    device: Device = "auto",
    backend: Backend = "auto",
    threads: Threads = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume/--fresh", help="Continue the run in --out, if there is one, or delete it and start."),
    ] = True,
    minutes: Annotated[
        float,
        typer.Option(
            min=0, help="Stop after this time and export the weights; the same command continues. 0: no limit."
        ),
    ] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, check the data, and stop.")] = False,
) -> None:
    """Train a tracker and write weights.safetensors for `fermt track --weights`.

    A demonstration on synthetic data, in minutes: fermt train --out demo

    The paper's training: fermt train --config paper --dataset got10k=... --dataset lasot=... --dataset trackingnet=...
    --dataset coco=...

    On four GPUs: torchrun --nproc-per-node 4 -m fermt train ... (each batch is divided among the processes).

    A run that was interrupted continues when the same command is given again. After Ctrl-C, SIGTERM and SIGHUP its
    state is saved before it ends (exit status 128 + the signal's number).
    """
    from ..training import joined, read_config  # takes a second, which other commands should not wait for

    overrides = [f"model={model}"] if model else []
    overrides += [] if dau is None else [f"model_options.dau={str(dau).lower()}"]
    if threads:
        torch.set_num_threads(threads)
    try:
        settings = _with_roots(read_config(config, [*overrides, *(change or [])]), dataset or [])
        _check_overwrites(config, settings, out)
        with joined(device) as world:
            _run(settings, out, world, backend, resume, dry_run, minutes)
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    except KeyboardInterrupt as error:
        raise interrupted(error, "Interrupted. The same command continues from the last state saved.") from error


def _check_overwrites(config: str, settings: TrainConfig, out: Path) -> None:
    """Refuses a folder in which the run's files would replace those that it reads; its own states are no inputs."""
    from ..training.state import FILES

    given = config if Path(config).suffix else None  # else the name of one that is built in
    check_inputs_kept(
        {f"{name} of --out": out / name for name in FILES},
        {"--config": given, "pretrained": settings.pretrained or None},
    )
    check_inputs_kept({"--out": out}, {f"the data set {name}": folder for name, folder in settings.roots.items()})


def _with_roots(settings: TrainConfig, datasets: Sequence[str]) -> TrainConfig:
    """Adds folders of data sets: from the command line, else from the configuration, else from the environment."""
    used = {*settings.data, *settings.validation}
    chosen = [parse_dataset(text, used) for text in datasets]
    folders = {one.name: str(one.root) for one in chosen}
    found = {name: folder for name, folder in roots().items() if name in used}
    return dataclasses.replace(settings, roots=found | settings.roots | folders)


def _run(
    settings: TrainConfig, out: Path, world: World, backend: str, resume: bool, dry_run: bool, minutes: float
) -> None:
    from ..training import Trainer
    from ..training.sources import open_sources
    from ..training.state import BEST, WEIGHTS, clear

    first = world.rank == 0
    if first and not dry_run and out.is_dir():
        with locked(out):  # a first look, before anything is read: the trainer locks the folder while it runs
            pass
    sources = open_sources(settings)
    if first:
        for line in _plan(settings, world, backend, sources.sequences):
            say(line)
    if dry_run:
        return
    if first and not resume:
        with locked(out):
            clear(out)
    world.wait()
    trainer = Trainer(
        settings, sources.train, sources.held_out, out, world, backend=backend, console=console if first else None
    )
    if first and trainer.progress.total:
        say(f"Continues after step {trainer.progress.total} of {trainer.display.total}.")
    complete = trainer.run(minutes)
    if first and not complete:
        say(f"The time is over after step {trainer.progress.total}; the same command continues.")
    if first:
        best = f"; the best in validation in {out / BEST}" if (out / BEST).exists() else ""
        say(f"Weights in {out / WEIGHTS}{best}")


def _plan(settings: TrainConfig, world: World, backend: str, sequences: dict[str, int]) -> list[str]:
    """Describes the run, one line for each aspect."""
    from ..training.trainer import initial_model

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
    schedule = {
        "step": f"x {settings.drop_factor:g} after {settings.drop_epoch} epochs",
        "constant": "constant",
        "cosine": f"cosine down to x {settings.drop_factor:g}",
    }[settings.schedule] + (f", {settings.warmup} steps of warm-up" if settings.warmup else "")
    return [
        f"model     {settings.model}, {count:,} parameters, {len(model.patterns)} blocks of {model.dim}, {unit} Dual "
        f"Attention Unit, {model.head} head; {weights}",
        f"data      {data}",
        f"steps     {settings.epochs} epochs x {settings.steps_per_epoch} of {settings.batch} pairs "
        f"({world.size} processes x {settings.accumulate} parts x {part})",
        f"AdamW     lr {settings.lr:g}, backbone x {settings.backbone_lr_factor:g}; {schedule}; "
        f"weight decay {settings.weight_decay:g}, clipped at {settings.clip:g}",
        f"runs on   {world.device}, backend {backend}, amp {settings.amp}, {torch.get_num_threads()} threads, "
        f"{settings.workers} workers",
    ]
