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
from typing import Any, NamedTuple

import torch
import triton

from .launch import Blocks, Choice, Overlap, Sizes, Tiles, Tuning

MEASURED = Path(__file__).with_name("measured.json")
ARCHITECTURES = (80, 86, 89, 90, 100, 120)  # ten times the compute capability
Entry = tuple[str, int, str | int]  # name of a table, bytes of an element, and what in it


class Candidate(NamedTuple):
    """Sizes that may be faster, and where they spill no registers: on which architectures, up to which Triton."""

    sizes: Choice
    archs: tuple[int, ...] = (90,)
    newest: tuple[int, int] = (3, 9)

    def fits(self, arch: int) -> bool:
        """Whether they may run on an architecture with the Triton that is installed."""
        return arch in self.archs and self.newest >= VERSION


VERSION = tuple(map(int, triton.__version__.split(".")[:2]))
BOTH = (86, 90)  # with 99 KB of shared memory for a program, and with 227
CANDIDATES: dict[Entry, tuple[Candidate, ...]] = {
    # Twice the keys: dK and dV are products of 64 rows, which a Hopper GPU multiplies by groups of four warps.
    ("BACKWARD", 2, 16): (Candidate(Blocks(256, 64, Tuning(8, 1)), newest=(3, 6)),),
    ("FORWARD", 2, 16): (
        Candidate(Blocks(64, 64, Tuning(4, 2)), BOTH),
        Candidate(Blocks(64, 32, Tuning(4, 3)), BOTH),
        Candidate(Blocks(128, 32, Tuning(4, 2)), BOTH),
    ),
    # Two warps on 32 rows: with four, two of them compute the same soft-max.
    ("FEW", 2, "attention 16"): (
        Candidate(Blocks(32, 64, Tuning(2, 2)), BOTH),
        Candidate(Blocks(32, 64, Tuning(2, 3)), BOTH),
        Candidate(Blocks(16, 64, Tuning(1, 2)), BOTH),
    ),
    # A third stage overlaps the next weights' loads; more shares are more programs.
    ("FEW", 2, "qkv"): (
        Candidate(Tiles(16, 64, 64, Tuning(4, 3), shares=3), BOTH),
        Candidate(Tiles(16, 32, 64, Tuning(4, 3), shares=6), BOTH),
    ),
    ("FEW", 2, "proj_mlp"): (
        Candidate(Tiles(16, 32, 64, Tuning(4, 3), shares=8), BOTH),
        Candidate(Tiles(16, 64, 64, Tuning(4, 3), shares=4)),
        Candidate(Tiles(16, 64, 64, Tuning(8, 3), shares=4)),
    ),
    ("FEW", 2, "convolution"): (
        Candidate(Tiles(64, 32, 64, Tuning(4, 5)), BOTH),
        Candidate(Tiles(32, 32, 64, Tuning(4, 4)), BOTH),
    ),
    # A layer's kernels are on the multiprocessors before the last one has ended, and wait there.
    ("FEW", 2, "overlap"): (Candidate(Overlap(True)),),
    # 128 rows occupy eight warps; or 64 rows and two programs a multiprocessor. 64 rows in eight warps repeat fc1.
    ("MANY", 2, "mlp"): (
        Candidate(Tiles(128, 64, 64, Tuning(8, 2)), newest=(3, 6)),
        Candidate(Tiles(64, 32, 64, Tuning(4, 3)), BOTH),
    ),
    ("MANY", 2, "qkv"): (
        Candidate(Tiles(128, 64, 64, Tuning(8, 2)), BOTH),
        Candidate(Tiles(64, 64, 64, Tuning(4, 3)), BOTH),
    ),
    ("MANY", 2, "proj"): (
        Candidate(Tiles(128, 64, 64, Tuning(8, 3)), BOTH),
        Candidate(Tiles(64, 64, 64, Tuning(4, 4)), BOTH),
    ),
    ("MANY", 2, "convolution"): (
        Candidate(Tiles(128, 128, 64, Tuning(8, 3)), BOTH),
        Candidate(Tiles(128, 128, 64, Tuning(8, 4))),
        Candidate(Tiles(128, 64, 64, Tuning(4, 3))),
    ),
}

_replaced: dict[Entry, Any] = {}
_target = 0


@contextmanager
def replacing(choices: Mapping[Entry, Choice]) -> Iterator[None]:
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
    return usable(read(json.loads(MEASURED.read_text())).get(arch, {}))


def usable(entries: Mapping[Entry, Any]) -> dict[Entry, Any]:
    """Those that do not spill registers with the Triton that is installed, as far as candidates say so."""
    newest = {(entry, each.sizes): each.newest for entry, listed in CANDIDATES.items() for each in listed}
    return {entry: chosen for entry, chosen in entries.items() if newest.get((entry, chosen), VERSION) >= VERSION}


def read(content: Mapping[str, Any]) -> dict[int, dict[Entry, Any]]:
    """The content of measured.json: entries by architecture."""
    return {
        int(arch): {_entry(name): _sizes(numbers) for name, numbers in measured["entries"].items()}
        for arch, measured in content.items()
    }


def written(entries: Mapping[Entry, Choice]) -> dict[str, dict[str, Any]]:
    """Entries in the form of measured.json."""
    return {" ".join(map(str, entry)): _numbers(chosen) for entry, chosen in entries.items()}


def _entry(text: str) -> Entry:
    table, itemsize, name = text.split(" ", 2)
    return table, int(itemsize), int(name) if name.isdigit() else name


def _numbers(chosen: Choice) -> dict[str, Any]:
    return chosen._asdict() | ({} if isinstance(chosen, Overlap) else {"tuning": _shortest(chosen.tuning)})


def _shortest(tuning: Tuning) -> dict[str, Any]:
    """Without what is as usual."""
    return {name: value for name, value in tuning._asdict().items() if name != "dependent" or value}


def _sizes(numbers: Mapping[str, Any]) -> Choice:
    if "dependent" in numbers:
        return Overlap(**numbers)
    kind: Any = Tiles if "k" in numbers else Blocks
    return kind(**{**numbers, "tuning": Tuning(**numbers["tuning"])})
