"""Settings of an evaluation run: model, device, and the division of the machine among sequences."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from fermt_kernels import __version__

from ..checkpoints import load_any
from ..datasets.benchmark import Benchmark
from ..machine import cores, facts
from ..model import FERMT
from ..tracking.network import ModuleNetwork, Packed, PackedNetwork, network_for
from ..weights import located
from .record import digest
from .runner import SequenceRunner

GPU_BATCH_SIZE = 32  # the default on a GPU


class Shares(NamedTuple):
    """The division of a machine among sequences."""

    workers: int  # processes
    threads: int  # CPU threads of each process; 0: PyTorch's default
    batch_size: int  # sequences that each process tracks in one call

    def __str__(self) -> str:
        threads = f"{self.threads} threads each" if self.threads else "torch's own number of threads"
        return f"{self.workers} x {self.batch_size} sequences at a time (processes x batch size), {threads}"

    @property
    def speed_caveat(self) -> str:
        """The reason why times do not measure speed; empty if they do."""
        reasons = {
            f"{self.workers} processes at once": self.workers > 1,
            f"{self.batch_size} sequences side by side": self.batch_size > 1,
        }
        return ", ".join(reason for reason, holds in reasons.items() if holds)


def divide(device: str, workers: int, threads: int, batch_size: int, sequences: int) -> Shares:
    """Chooses the values that are 0.

    A GPU gets one process with a large batch; a CPU gets a process with one thread for each core, but no more than
    there are sequences.
    """
    if torch.device(device).type != "cpu":
        return Shares(workers or 1, threads, batch_size or GPU_BATCH_SIZE)
    threads = threads or max(1, cores() // workers if workers else 1)
    return Shares(min(workers or max(1, cores() // threads), max(1, sequences)), threads, batch_size or 1)


class Loaded(NamedTuple):
    """A model and the network that runs it."""

    model: FERMT | Packed
    network: PackedNetwork | ModuleNetwork


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a process needs to run sequences."""

    benchmark: Benchmark
    folder: Path  # for results
    weights: Path
    backend: str
    device: str
    dtype: torch.dtype | None  # None: that of the weights
    threads: int  # of the CPU; 0: PyTorch's default
    batch_size: int

    def load(self) -> Loaded:
        """Loads the model in this process.

        Raises:
            OSError, ValueError: as `fermt.checkpoints.load_any` and `fermt.Tracker`.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
            cv2.setNumThreads(self.threads)
        model = load_any(self.weights, backend=self.backend, device=self.device)
        return Loaded(model, network_for(model, self.dtype))

    def runner(self, network: PackedNetwork | ModuleNetwork) -> SequenceRunner:
        """Makes the runner for this job's sequences."""
        return SequenceRunner(network, self.benchmark, self.folder, self.batch_size)


def describe(job: Job, loaded: Loaded, workers: int) -> dict[str, Any]:
    """Collects what the boxes of a run depend on, and some more facts (`record.MAY_CHANGE`)."""
    model, network = loaded
    dtype = job.dtype or (next(model.parameters()).dtype if isinstance(model, FERMT) else model.dtype)
    return {
        "dataset": job.benchmark.name,
        "split": job.benchmark.split,
        "weights": job.weights.name,
        "weights_sha256": digest(located(job.weights)),
        "config": model.config.to_dict() if isinstance(model, FERMT) else None,
        "frame": "packed" if isinstance(network, PackedNetwork) else "model",
        "backend": job.backend,
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(network.device) if network.device.type == "cuda" else "cpu",
        "side_by_side": job.batch_size,
        "workers": workers,
        "machine": facts(job.device),
        "fermt": __version__,
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
