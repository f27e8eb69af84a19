"""Batches of training pairs for one process, in a fixed order, from any step."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import normalize_batch
from ..data.pairs import Pairs, PairSource
from ..signals import inherited_as_ignored
from ..workers import end_with_parent, leave_signals, worker_context
from .config import TrainConfig
from .world import World

# What PyTorch says when the memory by which workers hand over batches is full: the system kills them, or a file fails.
SHARED_MEMORY = re.compile(
    r"[Bb]us error|shared memory|unable to (open|mmap|write to|resize) file|No space left on device"
)


class Batch(NamedTuple):
    """Pairs on the training device."""

    template: Tensor  # (B, 3, St, St), normalized
    search: Tensor  # (B, 3, Ss, Ss)
    boxes: Tensor  # (B, 4), xywh in [0, 1] of the search region


def training_indices(config: TrainConfig, world: World, first: int) -> list[list[int]]:
    """The pairs of this process in each part of each step of an epoch, from step `first` on.

    Rank r of W has the pairs r, r + W, ... of each part.
    """
    part = config.parts(world.size) * world.size
    starts = range(first * config.batch, config.steps_per_epoch * config.batch, part)
    return [list(range(start + world.rank, start + part, world.size)) for start in starts]


def validation_indices(config: TrainConfig, world: World, count: int) -> list[list[int]]:
    """This process's share of `count` pairs, in batches."""
    own, size = range(world.rank, count, world.size), config.parts(world.size)
    return [list(own[i : i + size]) for i in range(0, len(own), size)]


def load(source: PairSource, epoch: int, indices: Sequence[list[int]], workers: int, world: World) -> Iterator[Batch]:
    """Yields the batches of the given indices, prepared by `workers` processes, on the training device."""
    loader: DataLoader[dict[str, Tensor]] = DataLoader(
        Pairs(source, epoch),
        batch_sampler=indices,
        num_workers=workers,
        multiprocessing_context=worker_context(__name__) if workers else None,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=_start_worker,
        generator=torch.Generator(device="cpu"),  # so that it does not draw from the global one, which training uses
    )
    try:
        with inherited_as_ignored():
            batches = iter(loader)  # starts the workers
        for batch in batches:
            yield _to_device(batch, world)
    except RuntimeError as error:
        if not workers or not SHARED_MEMORY.search(str(error)):
            raise
        raise RuntimeError(
            f"the {workers} worker processes need more shared memory than there is ({_free()}): use workers=0, or "
            "fewer; in Docker, start the container with --shm-size=8g or --ipc=host. The first line of the error: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _free() -> str:
    """How much shared memory this system has free, for messages."""
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return "its size is unknown"
    return f"/dev/shm: {usage.free >> 20} of {usage.total >> 20} MiB free"


def _start_worker(_: int) -> None:
    """Prepares a worker; one that a signal ended would fail the step."""
    leave_signals()
    end_with_parent()


def _to_device(batch: dict[str, Tensor], world: World) -> Batch:
    template, search, boxes = (batch[key].to(world.device, non_blocking=True) for key in ("template", "search", "box"))
    return Batch(normalize_batch(template), normalize_batch(search), boxes)
