"""A frame's launches on a GPU: what each must move and compute, its floor, and how long it takes by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import Any

import torch

import fermt_kernels as fk
from fermt_kernels import triton as triton_backend
from fermt_kernels.frame.fold import fold
from fermt_kernels.frame.pack import for_device
from fermt_kernels.triton.launch import Launch, launch, recording

from ..frame_report import dtype_name
from ..harness import markdown
from . import cases
from .clocks import Machine, seconds_of
from .work import H200, Ceilings, Counted, Work, counted, joined, total

BATCHES = (1, 128)
DTYPE = torch.bfloat16
HEADINGS = ("kernel", "sizes", "launches", "MB", "GFLOP", "1e9 exp", "floor us", "by")


@lru_cache(maxsize=3)
def packed_model(device: str, dtype: torch.dtype, small: bool) -> fk.frame.CudaPackedModel:
    """The default model for the Triton kernels, whether they can run on that device or not."""
    return for_device(fold(cases.model(small)), dtype, torch.device(device))


def tracked_frame(
    device: str, dtype: torch.dtype, batch: int, small: bool
) -> tuple[fk.frame.CudaPackedModel, triton_backend.Frame]:
    """The model, and a frame of it that has run once, so that every launch finds what it reads."""
    packed = packed_model(device, dtype, small)
    frame = triton_backend.make_frame(packed.weights, packed.sizes, batch)
    template, search = cases.scene(packed, batch)
    frame.templates.copy_(template)
    frame.searches.copy_(search)
    frame.encode()
    frame.track()
    return packed, frame


def launches(batch: int, dtype: torch.dtype = DTYPE, small: bool = False) -> list[Launch]:
    """What a frame of `batch` targets would launch; nothing runs."""
    packed = packed_model("cpu", dtype, small)
    frame = triton_backend.make_frame(packed.weights, packed.sizes, batch)
    with recording() as recorded:
        frame.track()
    return recorded


def launch_all(sizes: Iterable[tuple[torch.dtype, int]]) -> None:
    """Encodes templates and runs a frame once for each dtype and batch, so that launches can be recorded."""
    for dtype, batch in sizes:
        packed = packed_model("cpu", dtype, small=False)
        frame = triton_backend.make_frame(packed.weights, packed.sizes, batch)
        frame.encode()
        frame.track()
        frame.track_image(torch.empty(*cases.IMAGE, 3, dtype=torch.uint8), bgr=False)


def _numbers(work: Work, seconds: float) -> list[str]:
    return [f"{number:.3g}" for number in (work.bytes / 1e6, work.flops / 1e9, work.exponentials / 1e9, seconds * 1e6)]


def table(kinds: Counter[Counted], ceilings: Ceilings) -> str:
    """A table with a row per kernel and size, for all of its launches, and the sums over the frame."""
    rows, floors = [], 0.0
    for kind, count in kinds.items():
        floor, by = ceilings.floor(kind.work)
        floors += count * floor
        together = Work(*(count * number for number in kind.work))
        rows.append([kind.kernel, kind.shape, str(count), *_numbers(together, count * floor), by])
    rows.append(["all", "", str(kinds.total()), *_numbers(total(kinds), floors), ""])
    return markdown(HEADINGS, rows)


def estimate() -> str:
    """The launches of a frame and their floors, for a machine that is not here."""
    text = []
    for batch in BATCHES:
        kinds = joined(launches(batch))
        repeated = sum(count * kind.repeated for kind, count in kinds.items())
        text += [
            f"A frame in {dtype_name(DTYPE)}, B = {batch}: {kinds.total()} launches; floors by the "
            f"{H200.origin}. Programs that share rows repeat {repeated / 1e9:.3g} GFLOP besides.",
            table(kinds, H200),
        ]
    return "\n\n".join(text)


@torch.no_grad()
def measure(machine: Machine) -> Iterator[dict[str, Any]]:
    """Yields a line per batch, kernel and size: seconds of one launch, replayed many times, and its work.

    What a launch reads and writes stays in the L2 cache where it fits, so that it may take less than a floor by memory.
    """
    small = not machine.on_gpu
    dtype, batches = (torch.float32, (1,)) if small else (DTYPE, BATCHES)
    for batch in batches:
        _, frame = tracked_frame(machine.device, dtype, batch, small)
        with recording() as recorded:
            frame.track()
        kinds = joined(recorded)
        found = {counted(each): each for each in reversed(recorded)}
        for kind, count in kinds.items():
            run = partial(launch, *found[kind])
            line: dict[str, Any] = {
                "benchmark": "frame/kernels", "dtype": dtype_name(dtype), "batch": batch, "kernel": kind.kernel,
                "sizes": kind.shape, "launches": count, **kind.work._asdict(),
            }  # fmt: skip
            line["seconds"] = seconds_of(run, machine.device, samples=10)
            machine.say(f"B = {batch}, {kind.kernel}, {kind.shape}: {line['seconds'] * 1e6:.1f} us")
            yield line


def report(lines: list[dict[str, Any]], ceilings: Ceilings) -> str:
    """A markdown table of what `measure` gave beside its floors, and the sums of each batch."""
    headings = ("dtype", "B", "kernel", "sizes", "launches", "us each", "us", "floor us", "by", "of floor")
    rows = []
    for batch in sorted({line["batch"] for line in lines}):
        chosen, sums = [line for line in lines if line["batch"] == batch], [0.0, 0.0]
        for line in chosen:
            floor, by = ceilings.floor(Work(line["bytes"], line["flops"], line["exponentials"]))
            us, least = (line["launches"] * seconds * 1e6 for seconds in (line["seconds"], floor))
            sums = [sums[0] + us, sums[1] + least]
            names = [line["dtype"], str(batch), line["kernel"], line["sizes"], str(line["launches"])]
            rows.append([*names, f"{line['seconds'] * 1e6:.2f}", f"{us:.1f}", f"{least:.1f}", by, f"{least / us:.0%}"])
        count = sum(line["launches"] for line in chosen)
        rows.append([chosen[0]["dtype"], str(batch), "all", "", str(count), ""])
        rows[-1] += [f"{sums[0]:.1f}", f"{sums[1]:.1f}", "", f"{sums[1] / sums[0]:.0%}"]
    return markdown(headings, rows)
