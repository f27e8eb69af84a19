"""The Dual Attention Unit: the reference against torch modules, its written gradient against autograd."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
import torch.nn as nn
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.backends import BACKENDS
from fermt_kernels.testing import assert_accurate, over_families, unit_inputs

from .support.lanes import slow

SHAPES = [
    (2, 3, 128, 128),
    (1, 3, 256, 256),
    (2, 3, 17, 33),
    (1, 3, 1, 1),
    (1, 3, 5, 2),
    (3, 1, 20, 19),
    (1, 4, 9, 30),
]
NAMES = ("out", "grad_x", *fk.DAUWeights._fields)


def run(x: Tensor, weights: list[Tensor], backend: str) -> Tensor:
    return torch.ops.fermt.dual_attention_unit(x, *weights, backend)


def gradients(x: Tensor, weights: list[Tensor], grad: Tensor, backend: str) -> tuple[Tensor, ...]:
    leaves = [t.detach().requires_grad_() for t in (x, *weights)]
    return torch.autograd.grad(run(leaves[0], leaves[1:], backend), leaves, grad)


def test_reference_is_what_the_modules_compute() -> None:
    unit = fk.modules.DualAttentionUnit().double()
    x = torch.randn(2, 3, 40, 30, dtype=torch.float64)
    u = nn.functional.gelu(unit.proj_1(x))
    gate = unit.spatial_gating_unit
    spatial = gate.conv1(gate.conv_spatial(gate.conv0(u)))
    expected = unit.proj_2(gate.fc(u.mean((2, 3)))[:, :, None, None] * spatial * u) + x
    torch.testing.assert_close(fk.reference.dual_attention_unit(x, unit.weights()), expected, rtol=1e-12, atol=1e-12)


def test_outside_the_image_the_dilated_convolution_sees_zeros() -> None:
    """With only the dilated convolution's border taps on, the corner pixel must see nothing at all."""
    x, weights = unit_inputs((1, 1, 4, 4))
    weights = [torch.zeros_like(w) for w in weights]
    by_name = dict(zip(fk.DAUWeights._fields, weights, strict=True))
    for name in ("proj_1_weight", "conv1_weight", "proj_2_weight"):
        by_name[name].fill_(1)
    by_name["conv0_bias"].fill_(1)  # conv0 is 1 everywhere, and would be outside too if padding came after it
    by_name["conv_spatial_weight"][..., 0, 0] = 1  # looks 6 pixels up and left: always outside
    out = fk.dual_attention_unit(x, fk.DAUWeights(*weights))
    assert torch.equal(out, x)


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_gradient_is_autograds(shape: tuple) -> None:
    x, weights = unit_inputs(shape, hidden=2, dtype=torch.float64)
    grad = torch.randn(shape, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, *weights)]
    expected = torch.autograd.grad(fk.reference.dual_attention_unit(leaves[0], leaves[1:]), leaves, grad)
    for name, got, want in zip(
        ("x", *fk.DAUWeights._fields), gradients(x, weights, grad, "reference"), expected, strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def everything(
    shape: tuple, hidden: int, kernel: int, backend: str, dtype: torch.dtype, compute: torch.dtype, families: int
) -> list[Tensor]:
    """`NAMES` on inputs drawn in `dtype`, computed in `compute`."""

    def draw(seed: int, neighbor: int) -> tuple[Tensor, ...]:
        x, weights = unit_inputs(shape, hidden, kernel, dtype, seed, neighbor)
        grad = unit_inputs(shape, dtype=dtype, seed=seed + 100, neighbor=neighbor)[0].to(compute)
        x, weights = x.to(compute), [w.to(compute) for w in weights]
        return run(x, weights, backend), *gradients(x, weights, grad, backend)

    return over_families(draw, families)


cache_of_everything = cache(everything)


def of_reference(
    shape: tuple, hidden: int, kernel: int, dtype: torch.dtype, compute: torch.dtype, families: int
) -> list[Tensor]:
    """`everything` of the reference; small cases once for all backends and instruction sets."""
    compute_or_recall = cache_of_everything if math.prod(shape) < 10_000 else everything
    return compute_or_recall(shape, hidden, kernel, "reference", dtype, compute, families)


def assert_unit_is_accurate(shape: tuple, hidden: int, kernel: int, backend: str, families: int = 0) -> None:
    """By the rule, over so many families; by default as many as results of few numbers ask for: their largest error is
    one number's."""
    families = families or (16 if math.prod(shape) < 100 else 8 if math.prod(shape) < 5000 else 1)
    for dtype in BACKENDS[backend].SUPPORTS["dual_attention_unit_forward"]:
        actual = everything(shape, hidden, kernel, backend, dtype, dtype, families)
        eager = of_reference(shape, hidden, kernel, dtype, dtype, families)
        truth = of_reference(shape, hidden, kernel, dtype, torch.float64, families)
        for name, *three in zip(NAMES, actual, eager, truth, strict=True):
            assert_accurate(*three, name=f"{name}, {dtype}", families=True)


def lane(shape: tuple, hidden: int, kernel: int) -> object:
    """A large image is for the slow lane, but for the model's own unit."""
    case = (shape, hidden, kernel)
    return slow(*case) if math.prod(shape) > 10_000 and (hidden, kernel) != (1, 5) else case


@pytest.mark.parametrize(
    ("shape", "hidden", "kernel"),
    [lane(shape, *each) for shape in SHAPES for each in ((1, 5), (2, 7), (3, 3))],
)
def test_backend_is_accurate(shape: tuple, hidden: int, kernel: int, backend: str) -> None:
    assert_unit_is_accurate(shape, hidden, kernel, backend)


def test_threads_do_not_change_a_bit(backend: str, two_threads: None) -> None:
    for dtype in BACKENDS[backend].SUPPORTS["dual_attention_unit_forward"]:
        x, weights = unit_inputs((2, 3, 50, 40), dtype=dtype)
        results = []
        for threads in (2, 1):
            torch.set_num_threads(threads)
            results.append((run(x, weights, backend), *gradients(x, weights, x, backend)))
        for two, one in zip(*results, strict=True):
            assert torch.equal(one, two)


def test_other_kernel_sizes_set_their_dilation() -> None:
    x, weights = unit_inputs((1, 3, 20, 20), kernel=7)
    by_name = dict(zip(fk.DAUWeights._fields, weights, strict=True))
    u = nn.functional.gelu(nn.functional.conv2d(x, weights[0], weights[1]))
    inner = nn.functional.conv2d(u, by_name["conv0_weight"], by_name["conv0_bias"], padding=3, groups=3)
    outer = nn.functional.conv2d(
        inner, by_name["conv_spatial_weight"], by_name["conv_spatial_bias"], padding=12, dilation=4, groups=3
    )
    spatial = nn.functional.conv2d(outer, by_name["conv1_weight"], by_name["conv1_bias"])
    hidden = torch.relu(u.mean((2, 3)) @ by_name["fc_0_weight"].T)
    channel = torch.sigmoid(hidden @ by_name["fc_2_weight"].T)[:, :, None, None]
    expected = nn.functional.conv2d(channel * spatial * u, by_name["proj_2_weight"], by_name["proj_2_bias"]) + x
    torch.testing.assert_close(fk.dual_attention_unit(x, fk.DAUWeights(*weights)), expected)


def test_gradcheck() -> None:
    x, weights = unit_inputs((1, 2, 4, 3), hidden=2, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, *weights)]
    assert torch.autograd.gradcheck(lambda x, *w: fk.reference.dual_attention_unit(x, w), leaves)
    assert torch.autograd.gradcheck(lambda x, *w: fk.dual_attention_unit(x, fk.DAUWeights(*w)), leaves)


def test_non_contiguous_input() -> None:
    x, weights = unit_inputs((2, 3, 20, 30))
    for odd in (
        x.transpose(2, 3),
        x[:, :, ::2, 1:],
        x[:1].expand(4, -1, -1, -1),
        x.to(memory_format=torch.channels_last),
    ):
        got, want = (fk.dual_attention_unit(t, fk.DAUWeights(*weights)) for t in (odd, odd.contiguous()))
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_weights_from_a_state_dict() -> None:
    unit = fk.modules.DualAttentionUnit()
    taken = fk.DAUWeights.from_state_dict(
        {f"backbone.dau.{k}": v for k, v in unit.state_dict().items()}, "backbone.dau."
    )
    for got, want in zip(taken, unit.weights(), strict=True):
        assert torch.equal(got, want)
    with pytest.raises(KeyError, match="spatial_gating_unit.conv0.weight"):
        fk.DAUWeights.from_state_dict({"proj_1.weight": torch.ones(1), "proj_1.bias": torch.ones(1)})
