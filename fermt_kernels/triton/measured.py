"""Block sizes by architecture: candidates for the entries of the tables, and those that were measured to be fastest.

The tables of attention.py and frame_tiles.py hold what runs where nothing was measured. `CANDIDATES` has, for some of
their entries, others that may be faster; `python -m benchmarks.gpu.triton_tune` times them on a GPU and writes the best
of its architecture to measured.json, which then replaces the tables' entries there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .launch import Blocks, Sizes, Tiles, Tuning

MEASURED = Path(__file__).with_name("measured.json")
ARCHITECTURES = (80, 86, 89, 90, 100, 120)  # ten times the compute capability
LARGE_MEMORY = (80, 90, 100)  # more than 160 KB of shared memory for a block; the others have 99
Entry = tuple[str, int, str | int]  # name of a table, bytes of an element, and what in it
Candidates = dict[Entry, tuple[tuple[Blocks | Tiles, tuple[int, ...]], ...]]  # sizes, and where they do not spill

CANDIDATES: Candidates = {
    ("FORWARD", 2, 16): (
        (Blocks(64, 64, Tuning(4, 2)), ARCHITECTURES),
        (Blocks(64, 32, Tuning(4, 3)), ARCHITECTURES),
        (Blocks(128, 32, Tuning(4, 2)), ARCHITECTURES),
    ),
    # Two warps on 32 rows: with four, two of them compute the same soft-max.
    ("FEW", 2, "attention 16"): (
        (Blocks(32, 64, Tuning(2, 2)), ARCHITECTURES),
        (Blocks(32, 64, Tuning(2, 3)), ARCHITECTURES),
        (Blocks(16, 64, Tuning(1, 2)), ARCHITECTURES),
    ),
    # A third stage loads the next weights meanwhile; more shares are more programs.
    ("FEW", 2, "qkv"): (
        (Tiles(16, 64, 64, Tuning(4, 3), shares=3), ARCHITECTURES),
        (Tiles(16, 32, 64, Tuning(4, 3), shares=6), ARCHITECTURES),
    ),
    ("FEW", 2, "proj_mlp"): (
        (Tiles(16, 32, 64, Tuning(4, 3), shares=8), ARCHITECTURES),
        (Tiles(16, 64, 64, Tuning(4, 3), shares=4), LARGE_MEMORY),
        (Tiles(16, 64, 64, Tuning(8, 3), shares=4), LARGE_MEMORY),
    ),
    ("FEW", 2, "convolution"): (
        (Tiles(64, 32, 64, Tuning(4, 5)), ARCHITECTURES),
        (Tiles(32, 32, 64, Tuning(4, 4)), ARCHITECTURES),
    ),
    # 128 rows occupy eight warps; or 64 rows and two programs a multiprocessor. 64 rows in eight warps repeat fc1.
    ("MANY", 2, "mlp"): (
        (Tiles(128, 64, 64, Tuning(8, 2)), (90,)),
        (Tiles(64, 32, 64, Tuning(4, 3)), (90,)),
    ),
    ("MANY", 2, "qkv"): (
        (Tiles(128, 64, 64, Tuning(8, 2)), ARCHITECTURES),
        (Tiles(64, 64, 64, Tuning(4, 3)), ARCHITECTURES),
    ),
    ("MANY", 2, "proj"): (
        (Tiles(128, 64, 64, Tuning(8, 3)), ARCHITECTURES),
        (Tiles(64, 64, 64, Tuning(4, 4)), ARCHITECTURES),
    ),
    ("MANY", 2, "convolution"): (
        (Tiles(128, 128, 64, Tuning(8, 3)), LARGE_MEMORY),
        (Tiles(128, 128, 64, Tuning(8, 4)), LARGE_MEMORY),
        (Tiles(128, 64, 64, Tuning(4, 3)), ARCHITECTURES),
    ),
}

_replaced: dict[Entry, Any] = {}
_target = 0


@contextmanager
def replacing(choices: Mapping[Entry, Blocks | Tiles]) -> Iterator[None]:
    """Uses these sizes in place of the tables' entries, to time or to compile them."""
    global _replaced
    before, _replaced = _replaced, {**_replaced, **choices}
    try:
        yield
    finally:
        _replaced = before


@contextmanager
def targeting(arch: int) -> Iterator[None]:
    """Takes the sizes of an architecture for tensors on the CPU, whose launches are recorded."""
    global _target
    before, _target = _target, arch
    try:
        yield
    finally:
        _target = before


def architecture(device: torch.device) -> int:
    """Ten times the compute capability; for a CPU that of `targeting`, or 0."""
    return _capability(device) if device.type == "cuda" else _target


@cache
def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def family(arch: int) -> int:
    """The architecture of `ARCHITECTURES` whose code runs there, or 0: compute capability 8.7 runs that of 8.6."""
    return max((known for known in ARCHITECTURES if known <= arch and known // 10 == arch // 10), default=0)


def sizes(arch: int, table: str, itemsize: int, name: str | int, default: Sizes) -> Sizes:
    """The sizes of an entry on an architecture: those measured there, else the table's own."""
    entry = table, itemsize, name
    return _replaced.get(entry) or _measured(family(arch)).get(entry, default)


def is_measured(arch: int) -> bool:
    """Whether an architecture has sizes of its own."""
    return bool(_measured(family(arch)))


@cache
def _measured(arch: int) -> dict[Entry, Any]:
    return read(json.loads(MEASURED.read_text())).get(arch, {})


def read(content: Mapping[str, Any]) -> dict[int, dict[Entry, Any]]:
    """The content of measured.json: entries by architecture."""
    return {
        int(arch): {_entry(name): _sizes(numbers) for name, numbers in measured["entries"].items()}
        for arch, measured in content.items()
    }


def written(entries: Mapping[Entry, Blocks | Tiles]) -> dict[str, dict[str, Any]]:
    """Entries in the form of measured.json."""
    return {" ".join(map(str, entry)): _numbers(chosen) for entry, chosen in entries.items()}


def _entry(text: str) -> Entry:
    table, itemsize, name = text.split(" ", 2)
    return table, int(itemsize), int(name) if name.isdigit() else name


def _numbers(chosen: Blocks | Tiles) -> dict[str, Any]:
    return chosen._asdict() | {"tuning": chosen.tuning._asdict()}


def _sizes(numbers: Mapping[str, Any]) -> Blocks | Tiles:
    kind: Any = Tiles if "k" in numbers else Blocks
    return kind(**{**numbers, "tuning": Tuning(**numbers["tuning"])})
