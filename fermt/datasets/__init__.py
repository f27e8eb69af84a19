"""Tracking data sets in their published folders: training sets (`open_set`) and benchmarks (`open_benchmark`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..data.sequences import SequenceSet
from ..data.synthetic import SyntheticSequences
from .benchmark import Benchmark, BenchmarkFolder, TestSequence
from .coco import COCOTraining
from .frames import SUFFIXES
from .got10k import GOT10kBenchmark, GOT10kTraining
from .imagenet_vid import ImageNetVIDTraining
from .index import cache_folder, load_index
from .lasot import LaSOTBenchmark, LaSOTExtBenchmark, LaSOTTraining
from .nfs import NFSBenchmark
from .otb100 import OTB100Benchmark
from .trackingnet import TrackingNetBenchmark, TrackingNetTraining
from .training import FileSet, TrainingFolder
from .uav123 import UAV123Benchmark

__all__ = [
    "BENCHMARKS",
    "BENCHMARK_FILES",
    "GENERATED",
    "TRAINING_FILES",
    "TRAINING_SETS",
    "Benchmark",
    "FileSet",
    "TestSequence",
    "cache_folder",
    "open_benchmark",
    "open_set",
]

TRAINING_SETS: dict[str, type[TrainingFolder]] = {
    one.name: one for one in (GOT10kTraining, LaSOTTraining, TrackingNetTraining, COCOTraining, ImageNetVIDTraining)
}
GENERATED = {"synthetic": SyntheticSequences}  # training sets without files
BENCHMARKS: dict[str, type[BenchmarkFolder]] = {
    one.name: one
    for one in (
        GOT10kBenchmark,
        TrackingNetBenchmark,
        LaSOTBenchmark,
        LaSOTExtBenchmark,
        NFSBenchmark,
        UAV123Benchmark,
        OTB100Benchmark,
    )
}

# Suffixes of the files that are read in their folders.
BENCHMARK_FILES = (*SUFFIXES, ".txt", ".label", ".ini")
TRAINING_FILES = (*BENCHMARK_FILES, ".json", ".xml")


def open_set(
    name: str,
    root: str | os.PathLike[str] | None,
    *,
    split: str = "train",
    only: str | os.PathLike[str] | None = None,
    exclude: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | bool = True,
) -> SequenceSet:
    """Opens a training set by name: got10k, lasot, trackingnet, coco, imagenet_vid, or synthetic, which has no root.

    Args:
        root: the folder of the data set; if a part of it is missing, the error shows the expected layout.
        split: "train", or "val" where there is one.
        only: file of the sequences to read, one name (or index, from 0) a line.
        exclude: file of the sequences to leave out, such as those that a challenge forbids.
        cache: folder to cache annotations in; True for the platform's cache folder, False for none.

    Raises:
        FileNotFoundError: the root or a part of it is missing.
        ValueError: an unknown name or split, a root too many or too few, or annotations that are missing or wrong.
    """
    if name in GENERATED:
        if root is not None:
            raise ValueError(f"{name} has no root; got {os.fspath(root)!r}")
        return GENERATED[name]()
    if name not in TRAINING_SETS:
        raise ValueError(f"unknown data set {name!r}; expected one of {', '.join((*TRAINING_SETS, *GENERATED))}")
    if root is None:
        raise ValueError(f"{name} needs a root. Expected layout:\n{TRAINING_SETS[name].layout}")
    opened = TRAINING_SETS[name](
        Path(root), split, None if only is None else Path(only), None if exclude is None else Path(exclude)
    )
    folder = cache_folder() if cache is True else None if cache is False else Path(cache)
    return FileSet(opened, load_index(opened, folder))


def open_benchmark(
    name: str,
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    only: Sequence[str] | str | os.PathLike[str] | None = None,
) -> Benchmark:
    """Opens a benchmark by name: got10k, trackingnet, lasot, lasot_ext, nfs, uav123 or otb100.

    Opening lists the sequences and checks that each exists; sequences are read on access.

    Args:
        root: the folder of the benchmark; if a part of it is missing, the error shows the expected layout.
        split: for got10k "val" (default) or "test"; for nfs the frames per second, "30" (default) or "240"; for the
            others "test".
        only: the sequences to evaluate on, by name, or a file of them, one name (or index, from 0) a line; None: all.

    Raises:
        FileNotFoundError: the root or a sequence is missing.
        ValueError: an unknown name, split or sequence.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](Path(root), split, only)
