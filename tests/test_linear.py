"""The linear layer, with a GELU before it or none: every backend against the reference in float64."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fermt
import fermt_kernels as fk
from fermt_kernels.backends import BACKENDS
from fermt_kernels.testing import assert_accurate, linear_inputs, over_families

from .support.errors import refused

SIZES = [  # rows, inputs, outputs: around the edges of tiles, panels, blocks and items
    (1, 1, 1),
    (5, 3, 2),
    (7, 16, 17),
    (50, 33, 64),
    (97, 64, 65),
    (65, 100, 96),
    (320, 192, 576),
    (300, 768, 192),
    (129, 385, 31),
    (257, 200, 290),
    (90, 200, 2),
    (40, 50, 3),
]
NAMES = ("out", "grad_x", "grad_weight", "grad_bias")


def run(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, backend: str) -> Tensor:
    return torch.ops.fermt.linear(x, weight, bias, gelu, x.dtype, x.dtype, backend)


def everything(sizes: tuple, gelu: bool, backend: str, dtype: torch.dtype, compute: torch.dtype) -> list[Tensor]:
    """`NAMES` on inputs drawn in `dtype`, computed in `compute`."""

    def draw(seed: int, neighbor: int) -> tuple[Tensor, ...]:
        x, weight, bias, grad = (tensor.to(compute) for tensor in linear_inputs(*sizes, dtype, seed, neighbor))
        leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
        out = run(*leaves, gelu, backend)
        return out.detach(), *torch.autograd.grad(out, leaves, grad)

    return over_families(draw, 4 if sizes[0] * sizes[2] < 2000 else 1)


of_reference = cache(lambda *case: everything(case[0], case[1], "reference", *case[2:]))


def assert_linear_is_accurate(sizes: tuple, gelu: bool, backend: str) -> None:
    for dtype in BACKENDS[backend].SUPPORTS["linear_forward"]:
        actual = everything(sizes, gelu, backend, dtype, dtype)
        eager = of_reference(sizes, gelu, dtype, dtype)
        truth = of_reference(sizes, gelu, dtype, torch.float64)
        for name, *three in zip(NAMES, actual, eager, truth, strict=True):
            assert_accurate(*three, name=f"{name}, {dtype}", families=True)


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_backend_is_accurate(sizes: tuple, gelu: bool, backend: str) -> None:
    assert_linear_is_accurate(sizes, gelu, backend)


@pytest.mark.parametrize("gelu", [False, True])
def test_reference_is_pytorchs_and_its_gradient_autograds(gelu: bool) -> None:
    x, weight, bias, grad = linear_inputs(9, 7, 5, torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    plain = F.linear(F.gelu(x) if gelu else x, weight, bias)
    out = run(*leaves, gelu, "reference")
    torch.testing.assert_close(out, plain, rtol=1e-13, atol=1e-13)
    expected, got = (torch.autograd.grad(value, leaves, grad) for value in (plain, out))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *three: run(*three, gelu, "reference"), leaves)


@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
@pytest.mark.parametrize("gelu", [False, True])
def test_a_gradient_alone_is_the_same(gelu: bool, needed: tuple, loaded: object) -> None:
    tensors = linear_inputs(70, 40, 50, torch.float32)
    together = torch.autograd.grad(
        run(*(t.requires_grad_() for t in tensors[:3]), gelu, "cpp"), tensors[:3], tensors[3]
    )
    alone = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors[:3], needed, strict=True)]
    leaf, expected = alone[needed.index(True)], together[needed.index(True)]
    assert torch.equal(torch.autograd.grad(run(*alone, gelu, "cpp"), leaf, tensors[3])[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_threads_do_not_change_a_bit(dtype: torch.dtype, two_threads: None, loaded: object) -> None:
    for sizes in ((320, 192, 192), (301, 65, 130)):
        *tensors, grad = linear_inputs(*sizes, dtype)
        leaves = [tensor.requires_grad_() for tensor in tensors]
        results = []
        for threads in (2, 1):
            torch.set_num_threads(threads)
            out = run(*leaves, True, "cpp")
            results.append((out, *torch.autograd.grad(out, leaves, grad)))
        for two, one in zip(*results, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("gelu", [False, True])
def test_any_layout_gives_the_same(gelu: bool) -> None:
    x, weight, bias, _ = linear_inputs(60, 48, 33, torch.float32)
    expected = fk.linear(x, weight, bias, gelu=gelu)
    wide = torch.randn(60, 50)
    wide[:, 1:-1] = x
    for odd in (x.mT.contiguous().mT, wide[:, 1:-1], x.view(3, 1, 20, 48), x.view(4, 15, 48).transpose(0, 1)):
        got = fk.linear(odd, weight.mT.contiguous().mT, bias, gelu=gelu)
        assert got.shape == (*odd.shape[:-1], 33)
        if odd.dim() == 4:
            got = got.view(60, 33)
        elif odd.dim() == 3:
            got = got.transpose(0, 1).reshape(60, 33)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fk.linear(x[:1].expand(5, -1), weight, bias, gelu=gelu), expected[:1].expand(5, -1))


def test_a_gradient_with_stride_0(loaded: object) -> None:
    x, weight, bias, _ = linear_inputs(30, 20, 10, torch.float32)
    leaf = weight.requires_grad_()
    (got,) = torch.autograd.grad(fk.linear(x, leaf, bias, backend="cpp").sum(), leaf)
    torch.testing.assert_close(got, x.sum(0).expand(10, 20), rtol=1e-5, atol=1e-5)


def test_nothing_to_multiply(loaded: object) -> None:
    x, weight, bias = (
        torch.zeros(0, 4).requires_grad_(),
        torch.ones(3, 4).requires_grad_(),
        torch.ones(3).requires_grad_(),
    )
    out = fk.linear(x, weight, bias, gelu=True, backend="cpp")
    assert out.shape == (0, 3)
    grads = torch.autograd.grad(out.sum(), (x, weight, bias))
    assert [grad.shape for grad in grads] == [(0, 4), (3, 4), (3,)]
    assert not grads[1].any()
    assert not grads[2].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_multiplies_in_its_dtype_and_returns_gradients_in_theirs(dtype: torch.dtype, loaded: object) -> None:
    """Inputs are rounded once, to what autocast says; a weight's gradient is not rounded at all."""
    x, weight, bias, grad = linear_inputs(300, 96, 80, torch.float32)
    grad = grad.to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
        out = fk.linear(*leaves, gelu=True, backend="cpp")
    assert out.dtype == dtype
    grads = torch.autograd.grad(out, leaves, grad)
    assert {tensor.dtype for tensor in grads} == {torch.float32}

    def reference(compute: torch.dtype) -> list[Tensor]:
        rounded = [t.to(dtype).to(compute).requires_grad_() for t in (x, weight, bias)]
        made = F.linear(F.gelu(rounded[0]), rounded[1], rounded[2])
        return [made.detach(), *torch.autograd.grad(made, rounded, grad.to(compute))]

    for name, got, eager, truth in zip(NAMES, (out, *grads), reference(dtype), reference(torch.float64), strict=True):
        assert_accurate(got.to(dtype), eager, truth, name=name)


@pytest.mark.parametrize("gelu", [False, True])
def test_a_result_in_float32_under_autocast_is_not_rounded(gelu: bool, loaded: object) -> None:
    x, weight, bias, grad = linear_inputs(200, 64, 48, torch.float32)
    results = []
    for out_dtype in (None, torch.float32):
        leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = fk.linear(*leaves, gelu=gelu, out_dtype=out_dtype, backend="cpp")
        exact = grad.bfloat16().to(out.dtype)
        results.append([out.detach(), *torch.autograd.grad(out, leaves, exact)])
    assert results[1][0].dtype == torch.float32
    assert torch.equal(results[1][0].bfloat16(), results[0][0])
    for narrow, wide in zip(results[0][1:], results[1][1:], strict=True):
        assert torch.equal(narrow, wide)
    plain = fk.linear(x, weight, bias, gelu=gelu, out_dtype=torch.float64, backend="reference")
    assert plain.dtype == torch.float64


def test_opcheck(loaded: object) -> None:
    x, weight, bias, grad = linear_inputs(6, 5, 4, torch.float32)
    for given in (bias, None):
        leaves = (x.requires_grad_(), weight.requires_grad_(), given)
        torch.library.opcheck(torch.ops.fermt.linear, (*leaves, True, torch.float32, torch.float32, "cpp"))
    needed = [True, True, False]
    torch.library.opcheck(
        torch.ops.fermt.linear_backward,
        (grad, x.detach(), weight.detach(), False, torch.float32, needed, "cpp"),
        test_utils="test_schema",
    )


def test_compiles_whole(loaded: object) -> None:
    layer = fk.modules.Linear(12, 7, backend="cpp")
    x = torch.randn(3, 5, 12)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(layer(x, gelu=True).square().sum(), layer.parameters())
    got = torch.autograd.grad(compiled(x, gelu=True).square().sum(), compiled.parameters())
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)


def test_refuses_a_second_derivative(loaded: object) -> None:
    x, weight, _, _ = linear_inputs(4, 3, 2, torch.float32)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(fk.linear(x, weight, gelu=True, backend="cpp").sum(), x, create_graph=True)
    with refused(RuntimeError, "fermt::linear"):
        grad.sum().backward()


def test_flops_are_counted(loaded: object) -> None:
    x, weight, bias, _ = linear_inputs(6, 5, 4, torch.float32)
    with FlopCounterMode(display=False) as counter:
        fk.linear(x, weight.requires_grad_(), bias, backend="cpp").sum().backward()
    assert counter.get_total_flops() == 2 * fk.flops.linear_macs(6, 5, 4, products=2)


def test_backends_without_one_take_pytorchs() -> None:
    x, weight, bias, _ = linear_inputs(6, 5, 4, torch.float32)
    for name in (name for name, backend in BACKENDS.items() if "linear_forward" not in backend.SUPPORTS):
        assert torch.equal(fk.linear(x, weight, bias, gelu=True, backend=name), F.linear(F.gelu(x), weight, bias))
    with refused(RuntimeError, "'cpp'", "linear_forward", torch.float64):
        fk.linear(x.double(), weight.double(), backend="cpp")


@pytest.mark.parametrize(
    ("arguments", "error", "values"),
    [
        ((1.0, torch.ones(2, 3)), TypeError, ("x", "float")),
        ((torch.ones(4), torch.ones(2, 3)), ValueError, ("x", "(..., 3)", (4,))),
        ((torch.ones(4, 3), torch.ones(3)), ValueError, ("weight", "(N, K)", (3,))),
        ((torch.ones(4, 3), torch.ones(2, 3), torch.ones(3)), ValueError, ("bias", (2,), (3,))),
        ((torch.ones(4, 3), torch.ones(2, 3).double()), TypeError, ("weight", "x", torch.float32, torch.float64)),
        ((torch.ones(4, 3).int(), torch.ones(2, 3).int()), TypeError, ("x", "float32", torch.int32)),
    ],
)
def test_bad_input(arguments: tuple, error: type[Exception], values: tuple[object, ...]) -> None:
    with refused(error, "linear", *values):
        fk.linear(*arguments)


def test_autocast_still_wants_one_device_and_no_float64_beside_others(loaded: object) -> None:
    x, weight = torch.randn(3, 5), torch.randn(7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        with refused(ValueError, "weight", "meta", "cpu"):
            fk.linear(x, weight.to("meta"))
        with refused(TypeError, "weight", "float64", "float32"):
            fk.linear(x, weight.double())


def test_a_result_in_float64(backend: str) -> None:
    x, weight = torch.randn(3, 5), torch.randn(7, 5)
    out = fk.linear(x, weight, out_dtype=torch.float64, backend=backend)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, (x @ weight.T).double(), rtol=1e-5, atol=1e-5)


def test_modules_are_those_of_pytorch(backend: str) -> None:
    layer, plain = fk.modules.Linear(20, 30, backend=backend), nn.Linear(20, 30)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 9, 20)
    torch.testing.assert_close(layer(x), plain(x))
    torch.testing.assert_close(layer(x, gelu=True), plain(F.gelu(x)))
    patches = fk.modules.PatchEmbed(8, 24, backend=backend)
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(patches(images), patches.proj(images).flatten(2).mT, rtol=1e-4, atol=1e-5)


def test_the_model_takes_other_modules_in_place_of_its_own() -> None:
    """A layer that somebody wraps still gets what a linear layer gets, after the activation that is there."""
    model = fermt.build_model("fermt", patterns=("mixed",), dim=48, num_heads=3).eval()
    mlp, tokens = model.backbone.blocks[0].mlp, torch.randn(2, 9, 48)
    expected = mlp(tokens)
    wrapped = copy.deepcopy(mlp)
    wrapped.fc2 = nn.Sequential(wrapped.fc2)
    torch.testing.assert_close(wrapped(tokens), expected)
    torch.testing.assert_close(mlp.fc2(F.gelu(mlp.fc1(tokens))), expected)
    for other in (nn.ReLU(), nn.GELU(approximate="tanh")):
        mlp.act = other
        torch.testing.assert_close(mlp(tokens), mlp.fc2(other(mlp.fc1(tokens))), rtol=1e-6, atol=1e-7)
