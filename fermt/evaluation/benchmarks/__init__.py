"""Benchmarks by name, each read as a `Benchmark`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..sequences import Benchmark
from .benchmark import FolderBenchmark
from .got10k import GOT10k
from .lasot import LaSOT, LaSOTExt
from .nfs import NFS
from .otb100 import OTB100
from .trackingnet import TrackingNet
from .uav123 import UAV123

__all__ = ["BENCHMARKS", "open_benchmark"]

BENCHMARKS: dict[str, type[FolderBenchmark]] = {
    one.name: one for one in (GOT10k, TrackingNet, LaSOT, LaSOTExt, NFS, UAV123, OTB100)
}


def open_benchmark(
    name: str,
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    only: Sequence[str] | str | os.PathLike[str] | None = None,
) -> Benchmark:
    """The benchmark of that name: got10k, trackingnet, lasot, lasot_ext, nfs, uav123 or otb100.

    Opening it lists its sequences and checks that each is there; a sequence is read when it is asked for.

    Args:
        root: the folder that holds it; if something is missing there, the error shows the layout.
        split: of got10k "val" (the usual one) or "test"; of nfs, in frames per second, "30" (the usual one) or "240";
            of the others "test".
        only: the sequences to evaluate on, by name, or a file of them, a name (or an index, from 0) a line; None: all.

    Raises:
        FileNotFoundError: the root, or a sequence in it, is not there.
        ValueError: an unknown name, split or sequence.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](Path(root), split, only)
