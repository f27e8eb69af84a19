"""Counts and a list of reported files, shared by all workers of a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch.utils.data import get_worker_info

MOST_WORKERS = 1024
SLOTS = 1 << 14  # entries of the table of files; when it is full, further files are reported each time
PROBES = 64


class Tally:
    """Counts by name. Each worker has its own row in shared memory, so no lock is needed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._counts = torch.zeros(MOST_WORKERS + 1, len(self.names), dtype=torch.int64, device="cpu").share_memory_()
        self._files = torch.zeros(SLOTS, dtype=torch.int64, device="cpu").share_memory_()

    def add(self, name: str) -> None:
        """Adds one to a count."""
        worker = get_worker_info()
        row = 0 if worker is None else 1 + worker.id % MOST_WORKERS
        self._counts[row, self.names.index(name)] += 1

    def totals(self) -> dict[str, int]:
        """Sums the counts of this process and its workers."""
        return dict(zip(self.names, self._counts.sum(dim=0).tolist(), strict=True))

    def is_new(self, file: str) -> bool:
        """Whether a file is reported for the first time. Two workers at the same moment may both get True."""
        mark = int.from_bytes(hashlib.sha256(file.encode()).digest()[:7], "big") + 1  # 0 is an empty slot
        for probe in range(PROBES):
            slot = (mark + probe) % SLOTS
            held = int(self._files[slot])
            if held == mark:
                return False
            if held == 0:
                self._files[slot] = mark
                return True
        return True
