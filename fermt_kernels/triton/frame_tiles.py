"""Sizes that the frame's kernels are launched with, as data: for few rows (one target, say) and for many.

By bytes of a value of the products. With few rows a frame waits for weights and launches, so that tiles are low and a
row's work is shared by programs; with many, tiles are as large as fit the registers of every architecture without a
spill (python -m benchmarks.triton_aot). In float32, whose products have no tensor cores, nothing more fits one program
than a linear layer.
"""

from __future__ import annotations

from typing import NamedTuple

from .attention import Blocks
from .launch import Tuning

FEW_ROWS = 4096  # at the most; below it a GPU has more multiprocessors than there are tiles of 64 rows


class Tiles(NamedTuple):
    """Rows, outputs and inputs that a program takes at a time; and how many programs share a row's outputs."""

    m: int
    n: int
    k: int
    tuning: Tuning
    shares: int = 1


class Mode(NamedTuple):
    """How a frame of that many rows runs."""

    embedding: Tiles
    qkv: Tiles
    attention: dict[int, Blocks]  # by head dim; others as the op alone
    layer: dict[str, Tiles]  # the steps that follow attention, in order
    norm: Tiles
    convolution: Tiles
    maps: Tiles


FEW = {
    2: Mode(
        embedding=Tiles(16, 64, 64, Tuning(4, 3)),
        qkv=Tiles(16, 64, 64, Tuning(4, 2), shares=3),
        attention={16: Blocks(32, 64, Tuning(4, 2))},
        layer={"proj_mlp": Tiles(16, 64, 64, Tuning(4, 2), shares=4)},
        norm=Tiles(4, 1, 64, Tuning(4)),
        convolution=Tiles(16, 64, 64, Tuning(4, 3)),
        maps=Tiles(16, 32, 64, Tuning(4, 3)),
    ),
    4: Mode(
        embedding=Tiles(16, 32, 32, Tuning(4)),
        qkv=Tiles(16, 32, 32, Tuning(4), shares=9),
        attention={},
        layer={
            "proj": Tiles(16, 32, 32, Tuning(4)),
            "fc1": Tiles(16, 32, 32, Tuning(4), shares=12),
            "fc2": Tiles(16, 32, 32, Tuning(4)),
        },
        norm=Tiles(4, 1, 64, Tuning(4)),
        convolution=Tiles(16, 32, 32, Tuning(4)),
        maps=Tiles(16, 32, 32, Tuning(4)),
    ),
}
MANY = {
    2: Mode(
        embedding=Tiles(64, 64, 64, Tuning(4, 3)),
        qkv=Tiles(64, 64, 64, Tuning(4, 2)),
        attention={},
        layer={
            "proj": Tiles(64, 64, 64, Tuning(4, 3)),
            "mlp": Tiles(64, 64, 64, Tuning(8, 2)),
        },
        norm=Tiles(4, 1, 64, Tuning(4)),
        convolution=Tiles(128, 128, 64, Tuning(8, 2)),
        maps=Tiles(128, 32, 64, Tuning(4, 3)),
    ),
    4: Mode(
        embedding=Tiles(32, 64, 32, Tuning(4)),
        qkv=Tiles(32, 32, 32, Tuning(8)),
        attention={},
        layer={
            "proj": Tiles(32, 64, 32, Tuning(4)),
            "fc1": Tiles(32, 32, 32, Tuning(8)),
            "fc2": Tiles(32, 64, 32, Tuning(4)),
        },
        norm=Tiles(4, 1, 64, Tuning(4)),
        convolution=Tiles(32, 64, 32, Tuning(4)),
        maps=Tiles(32, 32, 32, Tuning(4)),
    ),
}


def mode(itemsize: int, rows: int) -> Mode:
    return (FEW if rows <= FEW_ROWS else MANY)[itemsize]
