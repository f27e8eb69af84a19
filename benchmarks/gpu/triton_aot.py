"""Compiles every Triton kernel ahead of time, for GPUs that need not be here: registers, spills, shared memory."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console

import fermt
import fermt_kernels as fk
from fermt_kernels import triton as triton_backend
from fermt_kernels.files import atomic_write
from fermt_kernels.frame.fold import Folded, fold
from fermt_kernels.frame.pack import for_device
from fermt_kernels.triton.measured import CANDIDATES, is_measured, targeting

from .. import cases
from ..harness import ROOT, commit, counted, run_command, table
from . import triton_tune
from .cases import IMAGE, tf32_allowed
from .compilation import DTYPES, KERNEL_SECONDS, Source, distinct, launched

RESULTS = ROOT / "benchmarks" / "results" / "triton_aot.json"
# Name, reweighted, targets; any other number of targets needs no other compilation.
FRAMES = (("fermt", False, 1), ("fermt", False, 128), ("fermt-corner", True, 1))


class Chip(NamedTuple):
    """What a streaming multiprocessor has (CUDA programming guide, table of compute capabilities)."""

    name: str
    warps: int
    blocks: int
    shared: int  # bytes, all blocks of a multiprocessor
    shared_a_block: int
    registers: int = 65536


CHIPS = {
    80: Chip("A100", 64, 32, 164 << 10, 163 << 10),
    86: Chip("RTX 3090", 48, 16, 100 << 10, 99 << 10),
    89: Chip("RTX 4090", 48, 24, 100 << 10, 99 << 10),
    90: Chip("H100, H200", 64, 32, 228 << 10, 227 << 10),
    100: Chip("B200", 64, 32, 228 << 10, 227 << 10),
    120: Chip("RTX 5090", 48, 24, 100 << 10, 99 << 10),
}


class Compiled(NamedTuple):
    """One kernel for one architecture. `local` bytes a thread are spills (and arrays, of which there are none)."""

    kernel: str
    case: str
    arch: int
    registers: int
    local: int
    shared: int
    warps: int
    occupancy: float  # resident warps over the most that a multiprocessor holds


def _attention_launches(dtype: torch.dtype, heads: int, n: int, m: int, dim: int) -> None:
    q, k, v = torch.empty(1, n + m, 3, heads, dim, dtype=dtype).permute(2, 0, 3, 1, 4).unbind(0)
    out, lse = torch.empty_like(q), torch.empty(1, heads, n + m)
    triton_backend.attention_forward(q, k, v, out, lse, n, "mixed", dim**-0.5)
    triton_backend.attention_backward(out, q, k, v, out, lse, q, k, v, n, "mixed", dim**-0.5)


def _in_tf32(run: Callable[[], None]) -> None:
    with tf32_allowed():
        run()


def _unit_launches(dtype: torch.dtype, size: int) -> None:
    case = cases.UnitCase(size, 1)
    image, weights = case.image(dtype), fk.DAUWeights(*case.weights(dtype))
    triton_backend.dual_attention_unit_forward(image, weights, torch.empty_like(image))
    grads = fk.DAUWeights(*map(torch.empty_like, weights))
    triton_backend.dual_attention_unit_backward(image, image, weights, torch.empty_like(image), grads)


def _crop_launches(size: int) -> None:
    image, planes = (torch.empty(shape, dtype=torch.uint8) for shape in ((*IMAGE, 3), (3, *IMAGE)))
    out = torch.empty(2, size, size, 3, dtype=torch.uint8)
    triton_backend.crop_forward(image, torch.empty(2, 3, dtype=torch.int32), out)
    triton_backend.crop_forward(planes.permute(1, 2, 0), torch.empty(2, 3, dtype=torch.int64), out)


@lru_cache
def _folded(config: str, reweight: bool) -> Folded:
    return fold(fermt.build_model(config, reweight=reweight))


def frame_launches(config: str, reweight: bool, dtype: torch.dtype, batch: int) -> None:
    packed = for_device(_folded(config, reweight), dtype, torch.device("cpu"))
    frame = triton_backend.make_frame(packed.weights, packed.sizes, batch)
    frame.encode()
    frame.track()
    for bgr in (False, True):
        frame.track_image(torch.empty(*IMAGE, 3, dtype=torch.uint8), bgr)


def _plans() -> Iterator[tuple[str, Callable[[], None]]]:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        short = DTYPES[dtype]
        for dim in (16,) if dtype == torch.float16 else (16, 32, 64, 128):  # float16 takes bfloat16's blocks
            yield f"{short} D={dim} N=320", partial(_attention_launches, dtype, 1 + 191 // dim, 64, 256, dim)
        yield f"{short} D=16 N=5120", partial(_attention_launches, dtype, 12, 1024, 4096, 16)
        yield f"{short} D=16 N=97", partial(_attention_launches, dtype, 12, 33, 64, 16)
        yield f"{short} D=5 N=2", partial(_attention_launches, dtype, 1, 1, 1, 5)  # ones are compiled in
        for size in (128, 256):
            yield f"{short} {size}x{size}", partial(_unit_launches, dtype, size)
        for config, reweight, batch in FRAMES:
            yield f"{short} {config} B={batch}", partial(frame_launches, config, reweight, dtype, batch)
    for size in (1, 127, 128):
        yield f"crop {size}x{size}", partial(_crop_launches, size)
    yield "TF32 D=16 N=320", partial(_in_tf32, partial(_attention_launches, torch.float32, 12, 64, 256, 16))
    for batch in (1, 128):
        yield f"TF32 fermt B={batch}", partial(_in_tf32, partial(frame_launches, "fermt", False, torch.float32, batch))


@lru_cache
def sources(arch: int = 0) -> list[Source]:
    """Every launch of every op at the model's shapes and dtypes, each distinct one once, by an architecture's sizes."""
    with targeting(arch):
        return [source for source, _ in distinct((case, launch) for case, run in _plans() for launch in launched(run))]


def code_for(source: Source, arch: int) -> dict[str, Any]:
    """Compiles a launch: "ptx" and "cubin", and "shared", the bytes of shared memory of a program."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(source.module), source.kernel)
    attributes = {path: [["tt.divisibility", 16]] for path in source.divisible}
    found = triton.compile(
        ASTSource(fn=kernel, signature=source.signature, constexprs=source.constants, attrs=attributes),
        target=GPUTarget("cuda", arch, 32),
        options=source.tuning.options(),
    )
    return {"ptx": found.asm["ptx"], "cubin": found.asm["cubin"], "shared": found.metadata.shared}


def compile_for(source: Source, arch: int) -> Compiled:
    """Compiles to a cubin and asks cuobjdump, which comes with Triton, what it uses."""
    import triton

    code = code_for(source, arch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        listing = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", listing)}
    shared = code["shared"]
    return Compiled(
        source.kernel,
        source.case,
        arch,
        used["REG"],
        used["STACK"] + used["LOCAL"],
        shared,
        source.tuning.num_warps,
        occupancy(CHIPS[arch], used["REG"], shared, source.tuning.num_warps),
    )


def occupancy(chip: Chip, registers: int, shared: int, warps: int) -> float:
    """Resident warps of a kernel over those that a multiprocessor can hold; registers come in units of 8 a thread."""
    a_warp = max(1, -(-registers // 8) * 8) * 32
    blocks = min(chip.blocks, chip.warps // warps, chip.registers // (a_warp * warps))
    if shared:
        blocks = min(blocks, chip.shared // (shared + 1024))  # the driver keeps 1 KiB a block
    return blocks * warps / chip.warps


def candidates(arch: int) -> list[Source]:
    """The launches by candidates of block sizes that an architecture takes."""
    usual = {repr(source._replace(case="")) for source in sources()}
    cases = (
        (f"{' '.join(map(str, entry))}: {each.sizes}", partial(triton_tune.launch_one, entry, each.sizes))
        for entry, listed in CANDIDATES.items()
        for each in listed
        if each.fits(arch)
    )
    with targeting(arch):
        found = distinct((case, launch) for case, run in cases for launch in launched(run))
    return [source for source, _ in found if repr(source._replace(case="")) not in usual]


def one_each(every: list[Source]) -> list[Source]:
    """The first launch of each kernel."""
    return list({source.kernel: source for source in reversed(every)}.values())


def every_one(archs: Sequence[int]) -> list[tuple[Source, int]]:
    """What is compiled for these architectures: by the sizes that each takes, and by its candidates."""
    taken = [(source, arch) for arch in archs for source in sources(arch if is_measured(arch) else 0)]
    return taken + [(source, arch) for arch in archs for source in candidates(arch)]


def compile_all(todo: list[tuple[Source, int]], workers: int = 2) -> Iterator[Compiled]:
    """These launches, each for its architecture, as they are done."""
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(compile_for, *zip(*todo, strict=True), chunksize=4)


def main(
    archs: Annotated[str, typer.Option(help="Compute capabilities, such as 80,90.")] = ",".join(map(str, CHIPS)),
    quick: Annotated[
        bool, typer.Option("--quick", help="Each kernel once, for the first architecture; writes no JSON.")
    ] = False,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = RESULTS,
) -> None:
    """Compile every Triton kernel without a GPU; print registers, spilled bytes, shared memory and occupancy.

    The exit status is 1 if a kernel spills registers.
    """
    import triton

    chosen = [int(arch) for arch in archs.split(",")]
    todo = [(source, chosen[0]) for source in one_each(sources())] if quick else every_one(chosen)
    rows = list(counted(compile_all(todo), "compiling", "kernels", len(todo), len(todo) * KERNEL_SECONDS / 2))
    headings = ("kernel", "case", "sm", "regs", "spilled", "shared", "warps", "occupancy")
    cells = ([f"{value:.0%}" if isinstance(value, float) else str(value) for value in row] for row in rows)
    Console().print(table("Triton kernels, ahead of time", headings, cells, left=2))
    spilling = [row for row in rows if row.local]
    for row in spilling:
        Console().print(f"{row.kernel}, {row.case}, sm_{row.arch} spills {row.local} bytes a thread")
    if spilling:
        raise typer.Exit(1)
    if quick:
        return
    facts = {"triton": triton.__version__, "torch": torch.__version__}
    about = {"commit": commit(), "date": date.today().isoformat(), "versions": facts}
    atomic_write(out, json.dumps(about | {"kernels": [row._asdict() for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
