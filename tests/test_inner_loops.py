"""The inner loops of ARM's products, by LLVM's models of its CPUs: an estimate, for lack of the CPUs themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tools import inner_loops

LEAST_SHARE = 0.85  # of the time of the multiply-adds alone
LARGEST = (6, 4)  # rows and vectors of the tile that does nearly all of the work

# As GCC writes a tile of one row and one vector; the loop behind it stores what is left.
ASSEMBLY = """
_ZN12_GLOBAL__N_19gemm_tileILi1ELi1EfEEvPKT1_lS3_lllPKclPNS_5SumOfIS1_E4typeE:
\tmovi\tv1.4s, 0
.L3:
\tldr\tq0, [x2], 16 // the weights
#APP
\tldr s2, [x0], 4
#NO_APP
\tfmla\tv1.4s, v0.4s, v2.s[0]
\tcmp\tx4, x2
\tbne\t.L3
.L4:
\tstr\tq1, [x5], 16
\tcbnz\tx5, .L4
\tret
_ZN12_GLOBAL__N_15otherEv:
.L5:
\tfmla\tv1.4s, v0.4s, v2.s[0]
\tbne\t.L5
"""


def largest_loop(compiler: Any, row: str, source: str) -> inner_loops.Loop:
    loops = inner_loops.tile_loops(inner_loops.assembly(compiler, row, source))
    return next(loop for loop in loops if (loop.rows, loop.vectors) == LARGEST)


def test_a_tiles_loop_is_found() -> None:
    (loop,) = inner_loops.tile_loops(ASSEMBLY)
    assert (loop.rows, loop.vectors) == (1, 1)
    assert loop.instructions == (
        "ldr\tq0, [x2], 16",
        "ldr s2, [x0], 4",
        "fmla\tv1.4s, v0.4s, v2.s[0]",
        "cmp\tx4, x2",
        "bne\t.L3",
    )
    assert loop.multiply_adds == ("fmla\tv1.4s, v0.4s, v2.s[0]",)


@pytest.fixture
def compiler() -> Any:
    found = inner_loops.find_compiler()
    return found or pytest.skip("no compiler for aarch64 here (apt install g++-aarch64-linux-gnu)")


@pytest.mark.slow
@pytest.mark.parametrize(("row", "source"), [("neon", "float32"), ("neon_dotprod", "int8"), ("neon_i8mm", "int8")])
def test_a_tiles_sums_stay_in_registers(row: str, source: str, compiler: Any) -> None:
    loop = largest_loop(compiler, row, source)
    assert len(loop.multiply_adds) == LARGEST[0] * LARGEST[1]
    assert not [line for line in loop.instructions if "[sp" in line]


@pytest.mark.slow
def test_the_tile_comes_close_to_the_multiply_adds_own_rate(compiler: Any) -> None:
    mca = inner_loops.find_mca() or pytest.skip("no llvm-mca here (apt install llvm)")
    loop = largest_loop(compiler, "neon", "float32")
    for cpu in inner_loops.CPUS:
        assert inner_loops.share(mca, cpu, loop) >= LEAST_SHARE, cpu
