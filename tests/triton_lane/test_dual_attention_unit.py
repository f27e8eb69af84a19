"""The Dual Attention Unit's Triton kernels in Triton's interpreter: run with TRITON_INTERPRET=1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.testing import LAYOUTS, unit_inputs
from fermt_kernels.triton import dual_attention_unit as launchers
from fermt_kernels.triton.launch import recording
from tests.support.lanes import slow
from tests.test_dual_attention_unit import assert_unit_is_accurate, gradients, run


@pytest.fixture
def one_program_for_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter pays by the program."""
    monkeypatch.setattr(launchers, "TOTAL_COLUMNS", 256)
    monkeypatch.setattr(launchers, "TOTAL_ROWS", 16)


@pytest.mark.usefixtures("one_program_for_totals")
@pytest.mark.parametrize(
    ("shape", "hidden", "kernel", "families"),
    [
        slow((1, 1, 1, 1), 1, 3, 1),
        slow((1, 3, 1, 1), 2, 5, 1),
        slow((1, 2, 7, 5), 2, 3, 2),
        slow((1, 3, 5, 2), 2, 5, 2),
        slow((2, 3, 17, 13), 2, 3, 1),  # more than a block, in a batch
        slow((1, 3, 15, 11), 1, 5, 1),
        slow((1, 5, 3, 11), 1, 3, 1),
        ((1, 3, 4, 3), 1, 7, 1),
        slow((1, 1, 33, 17), 1, 5, 1),  # one channel of many pixels: each gradient one number, whose terms cancel
        slow((1, 9, 3, 5), 2, 3, 1),  # blocks for many channels
    ],
)
def test_unit_is_accurate(shape: tuple, hidden: int, kernel: int, families: int) -> None:
    assert_unit_is_accurate(shape, hidden, kernel, "triton", families)


@pytest.mark.slow
def test_more_tiles_than_are_summed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = unit_inputs((2, 3, 17, 19), hidden=2, kernel=3)
    once = (run(x, weights, "triton"), *gradients(x, weights, x, "triton"))
    for name, value in (("BLOCK", 64), ("TILE_SUMS", 2), ("TOTAL_ROWS", 4)):
        monkeypatch.setattr(launchers, name, value)
    again = (run(x, weights, "triton"), *gradients(x, weights, x, "triton"))
    for got, want in zip(again, once, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("one_program_for_totals")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_strides_do_not_change_a_bit(dtype: torch.dtype) -> None:
    for layout in ("sliced", "transposed", "expanded"):
        x = LAYOUTS[layout]((2, 3, 7, 9))[0]
        x = torch.empty_strided(x.shape, x.stride(), dtype=dtype).copy_(x) if 0 not in x.stride() else x.to(dtype)
        _, weights = unit_inputs((1, 3, 1, 1), kernel=3, dtype=dtype)
        results = [(run(t, weights, "triton"), *gradients(t, weights, t, "triton")) for t in (x, x.contiguous())]
        for got, want in zip(*results, strict=True):
            assert torch.equal(got, want)


@pytest.mark.usefixtures("one_program_for_totals")
def test_two_runs_give_the_same_bits_and_samples_do_not_mix() -> None:
    x, weights = unit_inputs((2, 3, 13, 17), kernel=3)
    results = [(run(x, weights, "triton"), *gradients(x, weights, x, "triton")) for _ in range(2)]
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)
    alone = run(x[1:], weights, "triton"), gradients(x[1:], weights, x[1:], "triton")[0]
    assert torch.equal(alone[0], results[0][0][1:])
    assert torch.equal(alone[1], results[0][1][1:])


@pytest.mark.usefixtures("one_program_for_totals")
def test_an_empty_batch_has_gradients_of_zero() -> None:
    x, weights = unit_inputs((0, 3, 4, 5), kernel=3)
    grad_x, *grads = gradients(x, weights, x, "triton")
    assert grad_x.shape == x.shape
    assert not any(grad.any() for grad in grads)


@pytest.mark.usefixtures("one_program_for_totals")
def test_weights_may_have_another_dtype() -> None:
    x, weights = unit_inputs((1, 3, 5, 6), kernel=3)

    def both(tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        weights, grads = fk.DAUWeights(*tensors), fk.DAUWeights(*map(torch.empty_like, tensors))
        out, grad_x = torch.empty_like(x), torch.empty_like(x)
        launchers.dual_attention_unit_forward(x, weights, out)
        launchers.dual_attention_unit_backward(x, x, weights, grad_x, grads)
        return out, [grad_x, *grads]

    halves = [weight.half() for weight in weights]
    out, grads = both(halves)
    expected, expected_grads = both([weight.float() for weight in halves])
    assert torch.equal(out, expected)
    for got, want in zip(grads, expected_grads, strict=True):
        assert torch.equal(got, want.to(got.dtype))


def test_launches_per_call() -> None:
    x, weights = unit_inputs((2, 3, 16, 16))
    weights = fk.DAUWeights(*weights)
    with recording() as launches:
        launchers.dual_attention_unit_forward(x, weights, torch.empty_like(x))
        forward = len(launches)
        grads = fk.DAUWeights(*map(torch.empty_like, weights))
        launchers.dual_attention_unit_backward(x, x, weights, torch.empty_like(x), grads)
    assert (forward, len(launches) - forward) == (3, 8)
