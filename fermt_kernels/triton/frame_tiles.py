"""Tile sizes of the frame's kernels as tables, for few rows (such as one target) and for many.

The key is the element size of the products in bytes. With few rows a frame is limited by loading weights and by
launches, so that tiles have few rows and programs share a row's work; with many, tiles are the largest that spill on no
architecture (python -m benchmarks.gpu.triton_aot). In float32, which has no tensor cores, a program fits no more than
one linear layer.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, TypeVar

from .launch import INTERPRETED, Blocks, Overlap, Tiles, Tuning
from .measured import sizes

Sized = TypeVar("Sized", Blocks, Tiles)

OLDEST_OVERLAP = 90  # the architecture since which a launch may be dependent
FEW_ROWS = 4096  # up to it there are fewer tiles of 64 rows than a GPU has multiprocessors


class Mode(NamedTuple):
    """The kernels of a frame and their tile sizes."""

    embedding: Tiles
    qkv: Tiles
    attention: dict[int, Blocks]  # by head dim; others use the table of the attention op
    layer: dict[str, Tiles]  # the steps that follow attention, in order
    norm: Tiles
    convolution: Tiles
    maps: Tiles
    overlap: Overlap = Overlap(False)  # of the launches of 16-bit layers with few rows


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


def mode(itemsize: int, rows: int, arch: int = 0) -> Mode:
    """The mode for products of `itemsize` bytes and `rows` search tokens in the batch, on an architecture."""
    name, table = ("FEW", FEW) if rows <= FEW_ROWS else ("MANY", MANY)
    found = table[itemsize]
    at = partial(sizes, arch, name, itemsize)
    chosen = found._replace(
        **{
            each: at(each, getattr(found, each))
            for each in ("embedding", "qkv", "norm", "convolution", "maps", "overlap")
        },
        attention={dim: at(f"attention {dim}", blocks) for dim, blocks in found.attention.items()},
        layer={step: at(step, tiles) for step, tiles in found.layer.items()},
    )
    return _dependent(chosen) if chosen.overlap.dependent and arch >= OLDEST_OVERLAP and not INTERPRETED else chosen


def _dependent(mode: Mode) -> Mode:
    """The mode with dependent launches of what a layer consists of."""
    return mode._replace(
        qkv=_overlapping(mode.qkv),
        attention={dim: _overlapping(blocks) for dim, blocks in mode.attention.items()},
        layer={step: _overlapping(tiles) for step, tiles in mode.layer.items()},
    )


def _overlapping(chosen: Sized) -> Sized:
    return chosen._replace(tuning=chosen.tuning._replace(dependent=True))
