"""Attention's Triton kernels in the interpreter, where a program is a loop of NumPy calls: small cases, every path."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

import fermt_kernels as fk
from fermt_kernels.testing import LAYOUTS, attention_inputs

from ..support.errors import refused
from ..support.lanes import first_fast, slow
from ..support.odd_numbers import assert_spread_alike
from ..test_attention import assert_backend_is_accurate, gradients, run

CASES = [  # (B, H, N, D), n, pattern: both sides of every block edge, each pattern, empty groups, one key
    slow((1, 1, 97, 16), 33, "mixed"),
    slow((1, 2, 65, 16), 1, "cross"),
    slow((1, 1, 64, 16), 63, "full"),
    slow((1, 1, 130, 16), 66, "one_way_cross"),
    slow((2, 1, 31, 8), 15, "self"),
    slow((1, 1, 40, 128), 8, "mixed"),
    slow((2, 2, 45, 64), 9, "cross"),
    slow((1, 1, 50, 32), 17, "mixed"),
    slow((1, 1, 400, 16), 70, "cross"),  # a group of more than 256: the long kernels in float16 too
    slow((1, 1, 7, 16), 0, "mixed"),
    ((1, 1, 21, 5), 4, "mixed"),
    slow((1, 1, 7, 16), 7, "cross"),
    ((1, 1, 1, 16), 1, "self"),
    ((0, 2, 9, 16), 4, "mixed"),
    ((2, 2, 0, 16), 0, "full"),
]


@pytest.mark.parametrize(("shape", "n", "pattern"), CASES)
def test_triton_is_accurate(shape: tuple, n: int, pattern: str) -> None:
    assert_backend_is_accurate(shape, n, pattern, "triton")


@pytest.mark.slow
@pytest.mark.parametrize("scale", [-0.3, 0.0, 2.5])
def test_triton_is_accurate_for_any_scale(scale: float) -> None:
    assert_backend_is_accurate((1, 1, 40, 16), 20, "mixed", "triton", scale)


@pytest.mark.parametrize("layout", ["packed", *(slow(name) for name in LAYOUTS if name != "packed")])
def test_layouts_give_the_same_bits(layout: str) -> None:
    odd = attention_inputs((2, 2, 20, 16), layout)
    grad = attention_inputs((2, 2, 20, 16), layout, seed=1)[0]
    dense = [t.clone(memory_format=torch.contiguous_format) for t in (*odd, grad)]
    results = [
        (*run(*three, 6, "mixed", "triton"), *gradients(*three, g, 6, "mixed", "triton"))
        for three, g in ((odd, grad), (dense[:3], dense[3]))
    ]
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


@pytest.mark.slow
def test_two_runs_give_the_same_bits() -> None:
    q, k, v = attention_inputs((1, 2, 70, 16), "packed", torch.float16)
    first, second = (gradients(q, k, v, q, 20, "mixed", "triton") for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_a_head_dim_that_is_too_large_is_refused() -> None:
    wide = torch.zeros(1, 1, 4, 136)
    with refused(RuntimeError, 128, 136):
        fk.attention(wide, wide, wide, 2, backend="triton")
    fk.attention(wide, wide, wide, 2)


@pytest.mark.parametrize("scale", [0.3, -0.7])
def test_one_key_gives_its_value_to_the_bit_in_float32(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager's error is 0 there. A GPU's "/" may be off in the last place, here in each of its results."""

    def off(self: object, lhs: TensorHandle, rhs: TensorHandle) -> TensorHandle:
        exact = lhs.data / rhs.data
        return TensorHandle(np.nextafter(exact, np.copysign(np.inf, exact)).astype(exact.dtype), lhs.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_fdiv", off)
    q, k, v = attention_inputs((1, 2, 6, 16), "packed")
    out, _ = run(q, k, v, 1, "self", "triton", scale)
    assert torch.equal(out[:, :, :1], v[:, :, :1])


@pytest.mark.parametrize("pattern", ["mixed", *map(slow, ("self", "full", "cross"))])
@pytest.mark.parametrize("dtype", [torch.float32, slow(torch.float16)], ids=str)
@pytest.mark.parametrize("tokens", [3, slow(70)])
@pytest.mark.parametrize("value", first_fast([-math.inf, math.inf, math.nan]))
def test_odd_numbers(pattern: str, dtype: torch.dtype, tokens: int, value: float) -> None:
    assert_spread_alike("triton", tokens, pattern, dtype, value)
