"""What an op must at least move and compute, and how fast a machine does each: floors for measured times."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fermt_kernels.patterns import score_pairs

from .cases import DIM, AttentionCase, UnitCase


class Work(NamedTuple):
    """Bytes to and from memory, each tensor once; floating-point operations of matrix products; exponentials."""

    bytes: float
    flops: float
    exponentials: float


class Ceilings(NamedTuple):
    """What a machine does in a second at best, and where the numbers are from."""

    bytes: float
    flops: float
    exponentials: float
    origin: str

    def floor(self, work: Work) -> tuple[float, str]:
        """Seconds that the tightest of the three takes, and its name."""
        times = {
            "memory": work.bytes / self.bytes,
            "products": work.flops / self.flops,
            "exponentials": work.exponentials / self.exponentials,
        }
        name = max(times, key=lambda key: times[key])
        return times[name], name


# NVIDIA's data sheet of the H200 SXM: 4.8 TB/s, 989 TFLOP/s dense bfloat16; 132 multiprocessors with 16 exponentials a
# clock each at 1.83 GHz.
H200 = Ceilings(4.8e12, 989e12, 132 * 16 * 1.83e9, "data sheet of the H200")


def attention_work(case: AttentionCase, dtype: torch.dtype, both: bool) -> Work:
    """Forward: Q K^T and P V. Backward recomputes the first, and has four products more."""
    pairs = score_pairs(case.pattern, case.n, case.tokens) * case.batch * case.heads
    tokens, size = case.batch * case.tokens, dtype.itemsize
    lse = 4 * tokens * case.heads
    forward = Work(4 * tokens * DIM * size + lse, 4 * pairs * (DIM // case.heads), pairs)
    if not both:
        return forward
    backward = Work(8 * tokens * DIM * size + lse, 10 * pairs * (DIM // case.heads), pairs)
    return Work(*(a + b for a, b in zip(forward, backward, strict=True)))


def unit_work(case: UnitCase, dtype: torch.dtype, both: bool) -> Work:
    """Reads x, writes the output. Backward reads x and the gradient, writes one, recomputes, has twice the products.

    The exponentials are GELU's, and in backward its derivative's too.
    """
    values = 3 * case.batch * case.size**2
    forward = Work(2 * values * dtype.itemsize, 2 * values * (3 * 3 + 2 * 25), values)
    backward = Work(3 * values * dtype.itemsize, 3 * forward.flops, 2 * values)
    return Work(*(a + b for a, b in zip(forward, backward, strict=True))) if both else forward
