"""The processes of a training run: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ..devices import check_device
from ..machine import pick_device

LIBRARIES = {"cuda": "nccl", "cpu": "gloo"}


class World(NamedTuple):
    """This process, the number of processes, and the device of this one."""

    rank: int
    size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """Sums over processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share(self, values: Iterable[Tensor]) -> None:
        """Copies the values of the first process to all, in place."""
        for value in values if self.size > 1 else ():
            dist.broadcast(value, 0)

    def wait(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Joins the processes that torchrun describes by RANK, LOCAL_RANK and WORLD_SIZE; without them, one process.

    Args:
        device: "cpu", "cuda", "cuda:1" (one process only), or "auto": a GPU if there is one.

    Raises:
        ValueError: an unknown or missing device.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", 0)), processes)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if processes == 1:
        yield World(0, 1, chosen)
        return
    store, rank, size = next(iter(dist.rendezvous("env://")))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":  # after a restart torchrun's store has keys of the dead processes
        store = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(LIBRARIES[chosen.type], store=store, rank=rank, world_size=size)
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int, size: int) -> torch.device:
    device = torch.device(pick_device(name))
    if device.type == "cpu":
        return torch.device("cpu")
    if size > 1 and device.index is not None:
        raise ValueError(f"each of {size} processes needs its own GPU: use device cuda, not {name!r}")
    return check_device(f"cuda:{local_rank if device.index is None else device.index}")
