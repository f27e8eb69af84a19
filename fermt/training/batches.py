"""Batches for one process: which pairs are its own, in which order, from any step on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import SyntheticBatches, normalize_batch
from ..data.pairs import Pairs, PairSource
from .config import TrainConfig
from .world import World


class Batch(NamedTuple):
    """Pairs on the device that trains."""

    template: Tensor  # (B, 3, St, St), normalised
    search: Tensor  # (B, 3, Ss, Ss)
    boxes: Tensor  # (B, 4), xywh in [0, 1] of the search region


def training_indices(config: TrainConfig, world: World, first: int) -> list[list[int]]:
    """The indices of each part of each step of an epoch from step `first` on; rank r has r, r + W, ... of a part."""
    part = config.parts(world.size) * world.size
    starts = range(first * config.batch, config.steps_per_epoch * config.batch, part)
    return [list(range(start + world.rank, start + part, world.size)) for start in starts]


def validation_indices(config: TrainConfig, world: World, count: int) -> list[list[int]]:
    """All of `count` indices, among the processes."""
    own, size = range(world.rank, count, world.size), config.parts(world.size)
    return [list(own[i : i + size]) for i in range(0, len(own), size)]


class DevicePairs:
    """As many pairs an epoch as it says, drawn in whole batches on the device that trains: no workers, no copies."""

    def __init__(self, batches: SyntheticBatches, pairs: int) -> None:
        self._batches, self._pairs = batches, pairs

    def __len__(self) -> int:
        return self._pairs

    def batch(self, epoch: int, own: Sequence[int], world: World) -> dict[str, Tensor]:
        """One for the indices `own` of a part, of which each process has every W-th."""
        part = own[0] // (len(own) * world.size)
        return self._batches.batch(epoch, part * world.size + world.rank)


def load(
    source: PairSource | DevicePairs, epoch: int, indices: Sequence[list[int]], workers: int, world: World
) -> Iterator[Batch]:
    """The batches of those indices, made by `workers` processes ahead of time and put on the device."""
    if isinstance(source, DevicePairs):
        for own in indices:
            yield _on(world, source.batch(epoch, own, world))
        return
    pairs = Pairs(source)
    pairs.set_epoch(epoch)
    loader: DataLoader[dict[str, Tensor]] = DataLoader(
        pairs,
        batch_sampler=indices,
        num_workers=workers,
        pin_memory=world.device.type == "cuda",
        generator=torch.Generator(),  # else it would draw a number from the one that training uses
    )
    for batch in loader:
        yield _on(world, batch)


def _on(world: World, batch: dict[str, Tensor]) -> Batch:
    template, search, boxes = (batch[key].to(world.device, non_blocking=True) for key in ("template", "search", "box"))
    return Batch(normalize_batch(template), normalize_batch(search), boxes)
