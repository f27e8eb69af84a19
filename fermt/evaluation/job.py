"""What a run computes with: the model, where it runs, and how the machine is divided among sequences."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from fermt_kernels import __version__

from ..checkpoints import load_any
from ..machine import facts
from ..model import FERMT
from ..tracking.network import ModuleNetwork, Packed, PackedNetwork, network_for
from .lanes import Lanes
from .record import digest
from .sequences import Benchmark

ABREAST = 32  # sequences that advance together on a GPU, if not asked for otherwise


class Shares(NamedTuple):
    """How a machine is divided among sequences."""

    workers: int  # processes
    threads: int  # of the CPU for each; 0 is torch's own choice
    abreast: int  # sequences that advance together in each

    def __str__(self) -> str:
        threads = f"{self.threads} threads each" if self.threads else "torch's own number of threads"
        return f"{self.workers} x {self.abreast} sequences at a time (processes x side by side), {threads}"

    @property
    def why_no_speed(self) -> str:
        """Why times are no measurement of speed; empty where they are one."""
        reasons = {
            f"{self.workers} processes at once": self.workers > 1,
            f"{self.abreast} sequences side by side": self.abreast > 1,
        }
        return ", ".join(reason for reason, holds in reasons.items() if holds)


def shares(device: str, workers: int, threads: int, abreast: int, sequences: int) -> Shares:
    """Fills in what is 0, not asked for.

    A GPU has one process and many sequences side by side; a CPU has a thread a process, and as many as it has cores,
    but no more than there are sequences.
    """
    if torch.device(device).type != "cpu":
        return Shares(workers or 1, threads, abreast or ABREAST)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = threads or max(1, cores // workers if workers else 1)
    return Shares(min(workers or max(1, cores // threads), max(1, sequences)), threads, abreast or 1)


class Loaded(NamedTuple):
    """A model, and what runs it."""

    model: FERMT | Packed
    network: PackedNetwork | ModuleNetwork


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process needs to know to run sequences."""

    benchmark: Benchmark
    folder: Path  # for results
    weights: Path
    backend: str
    device: str
    dtype: torch.dtype | None  # None: the weights' own
    threads: int  # of the CPU; 0 leaves torch's own choice
    abreast: int  # sequences that advance together

    def load(self) -> Loaded:
        """Loads the model here.

        Raises:
            OSError, ValueError: as `fermt.checkpoints.load_any` and `fermt.Tracker`.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
            cv2.setNumThreads(self.threads)
        model = load_any(self.weights, backend=self.backend, device=self.device)
        return Loaded(model, network_for(model, self.dtype))

    def lanes(self, network: PackedNetwork | ModuleNetwork) -> Lanes:
        return Lanes(network, self.benchmark, self.folder, self.abreast)


def describe(job: Job, loaded: Loaded, workers: int) -> dict[str, Any]:
    """What the boxes of a run depend on, and some more facts (`record.FREE`)."""
    model, network = loaded
    dtype = job.dtype or (next(model.parameters()).dtype if isinstance(model, FERMT) else model.dtype)
    return {
        "dataset": job.benchmark.name,
        "split": job.benchmark.split,
        "weights": job.weights.name,
        "weights_sha256": digest(job.weights),
        "config": model.config.to_dict() if isinstance(model, FERMT) else None,
        "frame": "packed" if isinstance(network, PackedNetwork) else "model",
        "backend": job.backend,
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(network.device) if network.device.type == "cuda" else "cpu",
        "side_by_side": job.abreast,
        "workers": workers,
        "machine": facts(job.device),
        "fermt": __version__,
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
