"""Training pairs as a torch data set, the same for any number of workers and any starting point."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info


class PairSource(Protocol):
    """A source of pairs. A pair depends on the seed of the source, the epoch and the index only."""

    def __len__(self) -> int:
        """Returns the number of pairs per epoch."""

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Makes a pair: `template` (St, St, 3) and `search` (Ss, Ss, 3), uint8 RGB, and `box` (4,) xywh in [0, 1]."""


def generator_for(*key: int) -> np.random.Generator:
    """The random generator for a key of whole numbers, at least 0; that of a pair has seed, epoch and index."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


class Pairs(Dataset[dict[str, Tensor]]):
    """The pairs of one epoch, for torch's default collation."""

    def __init__(self, source: PairSource, epoch: int) -> None:
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0; got {epoch}")
        self.source, self.epoch = source, epoch

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}); got {index}")
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # the workers already run in parallel
        return self.source.pair(self.epoch, index)
