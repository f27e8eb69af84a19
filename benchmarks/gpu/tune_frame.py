"""The frame's table of sizes, measured: one number of one entry at a time, by the time of the whole frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor
from triton import next_power_of_2
from triton.errors import TritonError

from fermt_kernels import triton as triton_backend
from fermt_kernels.triton import attention
from fermt_kernels.triton.attention import Blocks
from fermt_kernels.triton.frame_tiles import FEW, FEW_ROWS, MANY, Mode, Tiles
from fermt_kernels.triton.frame_weights import FrameSizes, FrameWeights
from fermt_kernels.triton.launch import Tuning

from .clocks import seconds_of
from .plan import tracked_frame

Numbers = dict[str, tuple[int, ...]]
NEAR = 0.1  # how far maps may be from the first table's: what a wrong sum exceeds, and another order of it does not
ATTENTION = "attention"
SIDES, WARPS, STAGES = (16, 32, 64, 128), (2, 4, 8), (1, 2, 3, 4)
DEPTHS, SHARES, ROWS = (32, 64, 128), (1, 2, 3, 4, 6, 8, 12), (1, 2, 4, 8, 16)
LINEAR: Numbers = {"m": SIDES, "n": SIDES, "k": DEPTHS, "num_warps": WARPS, "num_stages": STAGES}
SHARED: Numbers = LINEAR | {"shares": SHARES}
# What is tried for each number of an entry; a number that is not here does nothing for that entry.
TRIED: dict[str, Numbers] = {
    "embedding": LINEAR,
    "qkv": SHARED,
    ATTENTION: {"m": SIDES, "n": SIDES, "num_warps": WARPS, "num_stages": STAGES},
    "proj_mlp": SHARED,
    "proj": LINEAR,
    "mlp": SHARED,
    "fc1": SHARED,
    "fc2": LINEAR,
    "norm": {"m": ROWS, "k": DEPTHS, "num_warps": WARPS},
    "convolution": LINEAR,
    "maps": {"m": SIDES, "k": DEPTHS, "num_warps": WARPS, "num_stages": STAGES},
}
Entry = Tiles | Blocks


class _Subject(NamedTuple):
    """A model and its targets, and the maps that every table must give."""

    weights: FrameWeights
    sizes: FrameSizes
    caches: Tensor
    searches: Tensor
    maps: Tensor


def _subject(device: str, dtype: torch.dtype, batch: int, small: bool) -> _Subject:
    packed, frame = tracked_frame(device, dtype, batch, small)
    return _Subject(packed.weights, packed.sizes, frame.caches(), frame.searches, frame.head.maps)


def _seconds(subject: _Subject, on_gpu: bool) -> float | str:
    """Of a frame by the tables as they are; or why they have none."""
    batch = len(subject.searches)
    try:
        frame = triton_backend.make_frame(subject.weights, subject.sizes, batch)
        for target, cache in enumerate(subject.caches):
            frame.install(target, cache)
        frame.searches.copy_(subject.searches)
        frame.track()
        if not (apart := (frame.head.maps - subject.maps).abs().max().item()) <= NEAR:
            return f"maps are {apart:.3g} apart"
        return seconds_of(frame.track, "cuda" if on_gpu else "cpu")
    except (TritonError, RuntimeError) as error:  # too many registers, too much shared memory, or no way to compile it
        if on_gpu:
            torch.cuda.synchronize()  # raises again if it was worse
        return f"{type(error).__name__}: {str(error)[:120]}"


def _entries(mode: Mode, key: tuple[int, int], head_dim: int) -> dict[str, Entry]:
    """A mode's entries by name; attention's is the op's own where the mode has none."""
    blocks = mode.attention.get(head_dim, attention.FORWARD[key])
    alone = {name: getattr(mode, name) for name in ("embedding", "qkv", "norm", "convolution", "maps")}
    return alone | {ATTENTION: blocks, **mode.layer}


def _with(mode: Mode, name: str, entry: Entry, head_dim: int) -> Mode:
    if isinstance(entry, Blocks):
        return mode._replace(attention={**mode.attention, head_dim: entry})
    if name in mode.layer:
        return mode._replace(layer={**mode.layer, name: entry})
    change: dict[str, Any] = {name: entry}
    return mode._replace(**change)


def _changed(entry: Entry, number: str, value: int) -> Entry:
    change: dict[str, Any] = {number: value}
    return entry._replace(**({"tuning": entry.tuning._replace(**change)} if number in Tuning._fields else change))


def _others(entry: Entry, name: str, number: str, small: bool) -> Iterator[Entry]:
    """The entry with other values of one number; in the interpreter one, of the first number alone."""
    values = TRIED[name][number]
    if small:
        values = values[:2] if number == next(iter(TRIED[name])) else ()
    others = [other for value in values if (other := _changed(entry, number, value)) != entry]
    yield from others[:1] if small else others


def _code(name: str, entry: Entry) -> str:
    """A line for frame_tiles.py."""
    tuning = f"Tuning({', '.join(map(str, entry.tuning))})"
    if isinstance(entry, Blocks):
        return f"attention: Blocks({entry.m}, {entry.n}, {tuning})"
    shares = f", shares={entry.shares}" if entry.shares > 1 else ""
    return f"{name}: Tiles({entry.m}, {entry.n}, {entry.k}, {tuning}{shares})"


def tune(
    device: str, dtype: torch.dtype, batch: int, only: tuple[str, ...], minutes: float, sweeps: int, console: Console
) -> None:
    """Prints the best entries found, and the frame's time with them and before.

    An entry's numbers are tried one after the other, each at the best so far of all others, `sweeps` times over all
    entries; no more is tried once the minutes are over. The table of the package is as before afterwards.
    """
    small, began = device != "cuda", time.monotonic()
    subject = _subject(device, dtype, batch, small)
    table = FEW if batch * subject.sizes.num_search <= FEW_ROWS else MANY
    head_dim = subject.sizes.dim // subject.sizes.heads
    key = dtype.itemsize, max(16, next_power_of_2(head_dim))
    before = best = table[dtype.itemsize]
    first = _seconds(subject, not small)
    if isinstance(first, str):
        raise RuntimeError(f"the present table does not run: {first}")
    least, tried = first, 0
    wanted = [name for name in _entries(best, key, head_dim) if name in only or not only]
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    try:
        for name, number in [(entry, number) for entry in wanted for number in TRIED[entry]] * sweeps:
            for entry in _others(_entries(best, key, head_dim)[name], name, number, small):
                if time.monotonic() - began > 60 * minutes:
                    continue
                tried += 1
                table[dtype.itemsize] = candidate = _with(best, name, entry, head_dim)
                seconds = _seconds(subject, not small)
                if isinstance(seconds, str):
                    say(f"{_code(name, entry)}: left out, {seconds}")
                elif seconds < least:
                    least, best = seconds, candidate
                    say(f"{_code(name, entry)}: {seconds * 1e6:.1f} us")
    finally:
        table[dtype.itemsize] = before
    say(
        f"{'FEW' if table is FEW else 'MANY'}[{dtype.itemsize}], B = {batch}: {least * 1e6:.1f} us, "
        f"before {first * 1e6:.1f} us, {tried} tried"
    )
    for name, entry in _entries(best, key, head_dim).items():
        if name in wanted:
            say(_code(name, entry) + ("" if _entries(before, key, head_dim)[name] == entry else "  # new"))
