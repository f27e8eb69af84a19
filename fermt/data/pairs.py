"""Training pairs as a torch data set: any number of workers, any place to start from, the same pairs."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info


class PairSource(Protocol):
    """Where pairs come from. A pair depends on the source's seed, the epoch and the index, and on nothing else."""

    def __len__(self) -> int:
        """Pairs an epoch."""

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        """`template` (St, St, 3) uint8 RGB, `search` (Ss, Ss, 3) uint8 RGB, `box` (4,) float32 xywh in [0, 1]."""


def pair_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """All that is random in a pair."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index))))


class Pairs(Dataset[dict[str, Tensor]]):
    """A source's pairs of one epoch; batches are made by torch's default collation.

    The epoch lies in shared memory, so that workers which outlive an epoch know of the next.
    """

    def __init__(self, source: PairSource) -> None:
        self.source = source
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """What is drawn from now on belongs to `epoch`; to be called before the loader is iterated."""
        if epoch < 0:
            raise ValueError(f"an epoch is counted from 0; got {epoch}")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}); got {index}")
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # workers are parallel enough
        return self.source.pair(int(self._epoch), index)
