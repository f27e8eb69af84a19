"""The parts of the three runs on a GPU, as data: lines, table, launches, and the expected time of each."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from fermt.progress import duration
from fermt_kernels import triton as triton_backend
from fermt_kernels.triton.measured import targeting

from ..harness import markdown
from . import cases, checks, clocks, crop, frame, frame_checks, ops, plan, training, triton_tune
from .clocks import Machine
from .compilation import KERNEL_SECONDS, distinct, launched, warm, workers_here
from .work import Ceilings

Lines = list[dict[str, Any]]
Share = tuple[int, int]  # which of how many processes, each of which does a part of a part
SMOKE_RUNS, SMALL_RUNS = 3, 2
SANITIZER = "compute-sanitizer"


class Part(NamedTuple):
    """Something to check or measure, in a process of its own, or in several at once.

    `seconds` is about how long it takes on an H100 once its kernels are compiled, torch.compile's own work included;
    after `most` it is stopped. `launch_all` makes all of its launches once, to be recorded.
    """

    lines: Callable[[Machine, Share], Iterable[dict[str, Any]]]
    table: Callable[[Lines, Ceilings], str]
    seconds: float
    most: float
    launch_all: Callable[[], None] = lambda: None
    shards: int = 1
    prefix: tuple[str, ...] = ()  # of its command


def _machine(machine: Machine, _: Share) -> Iterator[dict[str, Any]]:
    """The GPU, its driver and clocks, and its measured peak rates."""
    if not machine.on_gpu:
        yield {"benchmark": "machine", "gpu": "none", "arch": 0, "ceilings": None, "kernels": triton_backend.describe()}
        return
    major, minor = torch.cuda.get_device_capability()
    columns = "name,driver_version,clocks.sm,clocks.max.sm,temperature.gpu,power.draw"
    answer = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    yield {
        "benchmark": "machine", "gpu": torch.cuda.get_device_name(), "arch": 10 * major + minor,
        "nvidia_smi": answer and f"{columns}: {answer}", "kernels": triton_backend.describe(),
        "ceilings": clocks.ceilings()._asdict(),
    }  # fmt: skip


def _about(lines: Lines, ceilings: Ceilings) -> str:
    rates = (
        f"Copies {ceilings.bytes / 1e12:.2f} TB/s, bfloat16 products {ceilings.flops / 1e12:.0f} TFLOP/s, "
        f"exponentials {ceilings.exponentials / 1e12:.2f}e12/s: {ceilings.origin}."
    )
    return "\n\n".join([rates, *(line["nvidia_smi"] for line in lines if line.get("nvidia_smi"))])


def compile_all(names: Iterable[str], arch: int, say: clocks.Say) -> Iterator[dict[str, Any]]:
    """Compiles all kernels of these parts in several processes, into the cache that every process finds them in."""
    workers = workers_here()
    for name in names:
        with targeting(arch):
            launches = [launch for _, launch in distinct(("", launch) for launch in launched(PARTS[name].launch_all))]
        if launches:
            say(f"{name}: {len(launches)} kernels, {workers} processes")
            faults = [reason for reason in warm(launches, arch, workers) if reason]
            yield {"benchmark": "compile", "of": name, "kernels": len(launches), "faults": faults}


def _share(every: list[checks.Check], share: Share) -> Iterator[dict[str, Any]]:
    index, count = share
    return checks.run(every[index::count])


def _dtypes(machine: Machine) -> tuple[torch.dtype, ...]:
    return triton_backend.DTYPES if machine.on_gpu else triton_backend.DTYPES[:1]


def _agree(machine: Machine, share: Share) -> Iterator[dict[str, Any]]:
    if not machine.on_gpu:
        return _share(checks.of_ops("cpu", _dtypes(machine), small=True, runs=SMALL_RUNS), share)
    frames = frame_checks.of_frames("cuda", (torch.bfloat16,), frame_checks.SHORT, runs=SMOKE_RUNS)
    return _share([*frames, *checks.of_the_model("cuda")], share)


def _check_ops(machine: Machine, share: Share) -> Iterator[dict[str, Any]]:
    return _share(checks.of_ops(machine.device, _dtypes(machine), small=not machine.on_gpu), share)


def _check_frames(machine: Machine, share: Share) -> Iterator[dict[str, Any]]:
    if machine.on_gpu:
        return _share(frame_checks.of_frames("cuda", _dtypes(machine)), share)
    small = frame_checks.of_frames("cpu", _dtypes(machine), frame_checks.SMALL, small=True, runs=SMALL_RUNS)
    return _share(small, share)


def _checked(lines: Lines, _: Ceilings) -> str:
    total = sum(line["compared"] for line in lines)
    wrong = [line for line in lines if line["faults"]]
    text = f"{len(lines)} checks, {total} results compared, {len(wrong)} checks with faults."
    rows = [[line["check"], "<br>".join(line["faults"])] for line in wrong]
    return f"{text}\n\n{markdown(('check', 'faults'), rows)}" if rows else text


def _times(lines: Lines, _: Ceilings) -> str:
    return clocks.table(lines)


def _launch_model() -> None:
    frame_checks.launch_all("cpu", (torch.bfloat16,), frame_checks.SHORT)
    checks.launch_all("cpu", (torch.bfloat16, torch.float32), checks.MODEL_CASES)


def _small_launches(machine: Machine, _: Share) -> Iterator[dict[str, Any]]:
    """A small op of each kind with its gradient, and a frame that is not captured: for a sanitizer."""
    dtypes = (torch.bfloat16,) if machine.on_gpu else _dtypes(machine)  # the interpreter has no bfloat16
    checks.launch_all(machine.device, dtypes, checks.SMALL_CASES)
    small = not machine.on_gpu
    tracked = plan.tracked_frame(machine.device, _dtypes(machine)[0], 1, small)[1]
    size = cases.SMALL_IMAGE if small else cases.IMAGE
    tracked.squares.copy_(cases.squares(cases.boxes(*size, 1)))
    tracked.track_image(cases.image(*size).to(machine.device), bgr=False)
    if machine.on_gpu:
        torch.cuda.synchronize()
    yield {"benchmark": "check", "check": "small launches", "compared": 0, "faults": []}


def _sanitized(tool: str, seconds: float) -> Part:
    command = (SANITIZER, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all")
    return Part(_small_launches, _checked, seconds, 2 * seconds, prefix=command)


HOPPER = 90  # whose candidates are compiled beforehand
ALL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PARTS = {
    "machine": Part(_machine, _about, 12, 60),
    "agree": Part(_agree, _checked, 30, 90, _launch_model, shards=4),
    "frame": Part(
        lambda machine, _: frame.measure(machine, frame.MAIN_SIZES), frame.table, 40, 120,
        partial(plan.launch_all, frame.MAIN_SIZES),
    ),
    "ops": Part(lambda machine, _: ops.measure(machine), ops.table, 40, 90, ops.launch_all),
    "kernels": Part(
        lambda machine, _: plan.measure(machine), plan.report, 25, 60, partial(plan.launch_all, frame.MAIN_SIZES)
    ),
    "crop": Part(lambda machine, _: crop.measure(machine), _times, 15, 40, crop.launch_all),
    "frame-others": Part(
        lambda machine, _: frame.measure(machine, frame.OTHER_SIZES), frame.table, 80, 150,
        partial(plan.launch_all, frame.OTHER_SIZES),
    ),
    "check-ops": Part(
        _check_ops, _checked, 60, 180, partial(checks.launch_all, "cpu", ALL_DTYPES), shards=8
    ),
    "check-frames": Part(
        _check_frames, _checked, 60, 150, partial(frame_checks.launch_all, "cpu", ALL_DTYPES), shards=8
    ),
    "tune": Part(
        lambda machine, _: triton_tune.lines(machine), lambda lines, _: triton_tune.table(lines), 75, 180,
        partial(triton_tune.launch_all, HOPPER),
    ),
    "memcheck": _sanitized("memcheck", 30),
    "racecheck": _sanitized("racecheck", 30),
    "training": Part(lambda machine, _: training.measure(machine), _times, 210, 270, ops.launch_all),
    "compiled-ops": Part(lambda machine, _: ops.measure(machine, compiled=True), ops.table, 90, 120, ops.launch_all),
    "compiled-frame-1": Part(
        lambda machine, _: frame.measure_compiled(machine, frame.MAIN_SIZES[:1]), frame.table, 75, 120,
        partial(plan.launch_all, frame.MAIN_SIZES[:1]),
    ),
    "compiled-frame-128": Part(
        lambda machine, _: frame.measure_compiled(machine, frame.MAIN_SIZES[1:]), frame.table, 75, 120,
        partial(plan.launch_all, frame.MAIN_SIZES[1:]),
    ),
}  # fmt: skip
# What matters most comes first: a run that is stopped has left out its last parts.
RUNS = {
    "headline": ("agree", "frame", "ops", "kernels", "crop", "frame-others"),
    "checks": ("check-ops", "check-frames", "tune", "memcheck", "racecheck"),
    "peers": ("compiled-frame-1", "training", "compiled-ops", "compiled-frame-128"),
}


def estimate(names: Iterable[str], cores: int) -> tuple[str, float]:
    """A table of what these parts would compile and of how long they take on a GPU's machine, and the seconds."""
    rows, compiled, total = [], set[str](), 0.0
    for name in ("machine", *names):
        part, before = PARTS[name], len(compiled)
        compiled |= {repr(source) for source, _ in distinct(("", launch) for launch in launched(part.launch_all))}
        new = len(compiled) - before
        seconds = new * KERNEL_SECONDS / max(1, cores - 1) + part.seconds
        total += seconds
        rows.append([name, str(new), f"{seconds:.0f}", f"{part.most:.0f}"])
    headings = ("part", "kernels to compile", "seconds, estimated", "stopped after")
    said = f"About {duration(total)} with {cores} cores and a GPU like an H100, of which none is here."
    return f"{markdown(headings, rows)}\n\n{said}", total
