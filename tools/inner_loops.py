"""Estimates how close the inner loops of ARM's matrix products come to the multiply-adds' own rate.

`python -m tools.inner_loops [FILE ...]` compiles the frames of each row with a compiler for aarch64 (CXX, or
aarch64-linux-gnu-g++), takes the loop of each tile from the assembly, and asks llvm-mca for its cycles on a few CPUs,
as LLVM models them: caches always hit, branches are always foreseen. A loop's share is the time of its multiply-adds
alone at their full rate, by the same model, over its own. With files of assembly, the tiles in them instead.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "csrc"))

native: Any = importlib.import_module("build_library")
CPUS = ("cortex-a76", "neoverse-n1", "apple-m1")
SOURCES = {"neon": ("float32", "int8"), "neon_dotprod": ("int8",), "neon_i8mm": ("int8",)}  # of csrc/frame/
COMPILER = "aarch64-linux-gnu-g++"
ITERATIONS = 200
NEWEST_LLVM = 30  # whose name is tried first

_MULTIPLY_ADD = re.compile(r"(fmla|smlal2?|sdot|sudot)\s")
_FUNCTION, _LABEL = re.compile(r"([A-Za-z_][\w.$]*):"), re.compile(r"(\.L\w+):")
_BRANCH = re.compile(r"\t(?:b\.?\w\w|cbn?z|tbn?z)\s.*?(\.L\w+)")
_TILE = re.compile(r"gemm_tileILi(\d+)ELi(\d+)E")


class Loop(NamedTuple):
    """A tile's inner loop: the rows and vectors of its sums, and its instructions."""

    rows: int
    vectors: int
    instructions: tuple[str, ...]

    @property
    def multiply_adds(self) -> tuple[str, ...]:
        return tuple(line for line in self.instructions if _MULTIPLY_ADD.match(line))


def find_mca() -> str | None:
    """llvm-mca of the newest LLVM that is installed: newer ones model more CPUs."""
    names = (*(f"llvm-mca-{version}" for version in range(NEWEST_LLVM, 13, -1)), "llvm-mca")
    return next((name for name in names if shutil.which(name)), None)


def find_compiler() -> Any:
    """A compiler for aarch64: CXX or the usual cross compiler; None if there is neither."""
    command = os.environ.get("CXX", "") or COMPILER
    if not shutil.which(command.split()[0]):
        return None
    compiler = native.find_compiler({"CXX": command})
    return compiler if native.is_arm(compiler.target) else None


def assembly(compiler: Any, row: str, source: str) -> str:
    """The assembly of csrc/frame/`source`.cpp for a row of the library."""
    isas = {row: native.ISAS[row]}
    path = f"csrc/frame/{source}.cpp"
    own = next(unit.flags for unit in native.units(compiler.target, isas) if unit.source == path)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.s"
        rows = native.rows_define({**isas, **{base: native.ISAS[base] for base in (native.BASES.get(row, row),)}})
        flags = [*native.CXXFLAGS.split(), rows, *own]
        subprocess.run([*compiler.command, *flags, "-S", path, "-o", str(out)], cwd=ROOT, check=True)
        return out.read_text(encoding="utf-8")


def tile_loops(text: str) -> Iterator[Loop]:
    """The loop of each tile of gemm/gemm.h, large tiles first: that with the most multiply-adds in the function."""
    functions: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if name := _FUNCTION.match(line):
            lines = functions.setdefault(name[1], [])
        lines.append(line.split("//")[0].rstrip())
    found = {}
    for function, body in functions.items():
        if not (tile := _TILE.search(function)):
            continue
        loops = (Loop(int(tile[1]), int(tile[2]), loop) for loop in _loops(body))
        best = max(loops, key=lambda loop: len(loop.multiply_adds), default=None)
        if best and best.multiply_adds:
            found[best.rows, best.vectors] = best
    yield from (found[key] for key in sorted(found, reverse=True))


def _loops(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The instructions between a label and a branch back to it, for each such branch."""
    labels: dict[str, int] = {}
    for at, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label[1]] = at
        elif (branch := _BRANCH.match(line)) and branch[1] in labels:
            inside = (text.strip() for text in lines[labels[branch[1]] : at + 1])
            yield tuple(text for text in inside if text and not text.startswith((".", "#")))


def _run_mca(mca: str, cpu: str, instructions: Sequence[str], figure: str) -> float:
    """Runs llvm-mca on a loop and returns one figure of its summary."""
    command = [mca, "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm", f"-iterations={ITERATIONS}"]
    done = subprocess.run(command, input="\n".join(instructions), capture_output=True, text=True, check=True)
    found = re.search(rf"{figure}:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def cycles(mca: str, cpu: str, loop: Loop) -> float:
    """Cycles of one round of a loop on a CPU, as LLVM models it."""
    return _run_mca(mca, cpu, loop.instructions, "Total Cycles") / ITERATIONS


def share(mca: str, cpu: str, loop: Loop) -> float:
    """The part of a loop's time that its multiply-adds take alone, were each free to start at once."""
    return _run_mca(mca, cpu, loop.multiply_adds, "Block RThroughput") / cycles(mca, cpu, loop)


def report(mca: str, title: str, text: str) -> None:
    for loop in tile_loops(text):
        count = len(loop.multiply_adds)
        size = f"{loop.rows} x {4 * loop.vectors}"
        print(f"{title}, {size}: {count} multiply-adds of {len(loop.instructions)} instructions")
        for cpu in CPUS:
            print(f"  {cpu:12} {cycles(mca, cpu, loop):6.2f} cycles, {share(mca, cpu, loop):4.0%}")


def main(files: Sequence[str]) -> None:
    mca, compiler = find_mca(), find_compiler()
    if mca is None:
        raise SystemExit("llvm-mca not found. Install LLVM (Debian, Ubuntu: apt install llvm).")
    print(subprocess.run([mca, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0].strip())
    for file in files:
        report(mca, file, Path(file).read_text(encoding="utf-8"))
    if files:
        return
    if compiler is None:
        raise SystemExit(
            f"no compiler for aarch64: set CXX, or install {COMPILER} (apt install g++-aarch64-linux-gnu)."
        )
    print(native.described(compiler))
    for row, sources in SOURCES.items():
        for source in sources:
            report(mca, f"{row}, {source}", assembly(compiler, row, source))


if __name__ == "__main__":
    main(sys.argv[1:])
