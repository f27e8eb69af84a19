"""The ops inside PyTorch: opcheck, torch.compile, autocast, second derivatives, the FLOP counter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fermt_kernels as fk
from fermt_kernels.backends import BACKENDS
from fermt_kernels.testing import attention_inputs, unit_inputs

from .conftest import COMPILED
from .support.errors import refused

NAMES = ["reference", *COMPILED]


def usable(backend: str, op: str) -> str:
    reason = BACKENDS[backend].unavailable_reason() or (None if op in BACKENDS[backend].SUPPORTS else f"it has no {op}")
    if reason:
        pytest.skip(f"backend {backend}: {reason}")
    return backend


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["contiguous", "packed"])
def test_opcheck_attention(name: str, layout: str) -> None:
    usable(name, "attention_forward")
    q, k, v = (t.detach().requires_grad_() for t in attention_inputs((2, 3, 20, 16), layout))
    torch.library.opcheck(torch.ops.fermt.attention, (q, k, v, 7, "mixed", 0.25, name))
    qkv = torch.randn(2, 20, 96, requires_grad=True)
    torch.library.opcheck(torch.ops.fermt.attention_packed, (qkv, 2, 7, "cross", 0.25, name))


@pytest.mark.parametrize("name", NAMES)
def test_opcheck_attention_backward(name: str) -> None:
    usable(name, "attention_backward")
    q, k, v = attention_inputs((2, 3, 20, 16))
    out, lse = torch.ops.fermt.attention(q, k, v, 7, "mixed", 0.25, name)
    grad = torch.randn_like(out)
    torch.library.opcheck(torch.ops.fermt.attention_backward, (grad, q, k, v, out, lse, 7, "mixed", 0.25, name))
    qkv, grad = torch.randn(2, 20, 96), torch.randn(2, 20, 32)
    out, lse = torch.ops.fermt.attention_packed(qkv, 2, 7, "mixed", 0.25, name)
    torch.library.opcheck(torch.ops.fermt.attention_packed_backward, (grad, qkv, out, lse, 2, 7, "mixed", 0.25, name))


@pytest.mark.parametrize("name", NAMES)
def test_opcheck_dual_attention_unit(name: str) -> None:
    usable(name, "dual_attention_unit_forward")
    x, weights = unit_inputs((2, 3, 12, 10))
    leaves = [t.requires_grad_() for t in (x, *weights)]
    torch.library.opcheck(torch.ops.fermt.dual_attention_unit, (*leaves, name))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiles_as_one_graph(compiler: str) -> None:
    """Attention and the unit, forward and backward, with no graph break; the backend is a constant of the graph."""
    unit = fk.modules.DualAttentionUnit()
    attention = fk.modules.TemplateSearchAttention(48, 3, "mixed")

    def loss(image: Tensor, tokens: Tensor) -> Tensor:
        return unit(image).square().mean() + attention(tokens, 7).square().mean()

    inputs = [torch.randn(2, 3, 12, 10, requires_grad=True), torch.randn(2, 20, 48, requires_grad=True)]
    leaves = [*inputs, *unit.parameters(), *attention.parameters()]
    expected = torch.autograd.grad(loss(*inputs), leaves)
    actual = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend=compiler)(*inputs), leaves)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_compiles_for_any_number_of_tokens() -> None:
    compiled = torch.compile(fk.mixed_attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for tokens, n in ((20, 7), (33, 12), (9, 3)):
        qkv = torch.randn(1, tokens, 96)
        assert torch.equal(compiled(qkv, 2, n), fk.mixed_attention(qkv, 2, n))


def test_compiled_op_keeps_its_errors() -> None:
    with refused(Exception, "pattern", "'x'"):
        torch.compile(fk.attention_packed, backend="aot_eager")(torch.randn(1, 9, 96), 2, 3, "x")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast(dtype: torch.dtype, compiled: bool) -> None:
    """Under autocast the ops run in autocast's dtype and the gradients come back in the leaves'."""
    qkv = torch.randn(2, 20, 96, requires_grad=True)
    x, weights = unit_inputs((2, 3, 12, 10))

    def both(qkv: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return fk.mixed_attention(qkv, 2, 7), fk.dual_attention_unit(x, fk.DAUWeights(*weights))

    function = torch.compile(both, fullgraph=True, backend="aot_eager") if compiled else both
    with torch.autocast("cpu", dtype=dtype):
        attended, enhanced = function(qkv, x)
    assert attended.dtype == enhanced.dtype == dtype
    assert torch.equal(attended, fk.mixed_attention(qkv.to(dtype), 2, 7))
    assert torch.equal(enhanced, fk.dual_attention_unit(x.to(dtype), fk.DAUWeights(*(w.to(dtype) for w in weights))))
    attended.float().sum().backward()
    assert qkv.grad is not None
    assert qkv.grad.dtype == torch.float32


def test_backward_inside_autocast_stays_in_the_forwards_dtype() -> None:
    qkv = torch.randn(2, 20, 96, requires_grad=True)
    outside = torch.autograd.grad(fk.mixed_attention(qkv, 2, 7).sum(), qkv)[0]
    loss = fk.mixed_attention(qkv, 2, 7).sum()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(torch.autograd.grad(loss, qkv)[0], outside)


def test_autocast_leaves_float64_alone() -> None:
    q, k, v = (t.double() for t in attention_inputs((1, 2, 9, 16)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fk.attention(q, k, v, 4).dtype == torch.float64


@pytest.mark.parametrize("op", ["attention", "dual_attention_unit"])
def test_second_derivative_is_refused(op: str) -> None:
    if op == "attention":
        first, *rest = (t.requires_grad_() for t in attention_inputs((1, 2, 9, 16)))
        out = fk.attention(first, *rest, 4)
    else:
        first, weights = unit_inputs((1, 3, 8, 8))
        out = fk.dual_attention_unit(first.requires_grad_(), fk.DAUWeights(*weights))
    (grad,) = torch.autograd.grad(out.square().sum(), first, create_graph=True)
    with refused(RuntimeError, f"fermt::{op}", f"reference.{op}"):
        grad.sum().backward()


def test_lse_is_not_differentiable() -> None:
    q, k, v = (t.requires_grad_() for t in attention_inputs((1, 2, 9, 16)))
    out, lse = torch.ops.fermt.attention(q, k, v, 4, "mixed", 0.25, "reference")
    assert out.requires_grad
    assert not lse.requires_grad


def test_flop_formulas_agree_with_torch_counting_the_reference() -> None:
    """Our formula for an op is what torch counts in the matrix products and convolutions of its reference."""
    q, k, v = attention_inputs((2, 3, 20, 16))
    for pattern in fk.PATTERNS:
        with FlopCounterMode(display=False) as of_reference:
            fk.reference.attention(q, k, v, 7, pattern, 0.25)
        with FlopCounterMode(display=False) as of_op:
            fk.attention(q, k, v, 7, pattern)
        expected = 2 * fk.flops.attention_macs(2, 3, 20, 16, 7, pattern)
        assert of_op.get_total_flops() == of_reference.get_total_flops() == expected
    x, weights = unit_inputs((2, 3, 12, 10))
    with FlopCounterMode(display=False) as of_reference:
        fk.reference.dual_attention_unit(x, weights)
    with FlopCounterMode(display=False) as of_op:
        fk.dual_attention_unit(x, fk.DAUWeights(*weights))
    expected = 2 * fk.flops.dual_attention_unit_macs(2, 3, 12, 10)
    assert of_op.get_total_flops() == of_reference.get_total_flops() == expected


def test_flop_formulas_of_the_gradients() -> None:
    qkv = torch.randn(2, 20, 96, requires_grad=True)
    x, weights = unit_inputs((2, 3, 12, 10))
    with FlopCounterMode(display=False) as counter:
        fk.mixed_attention(qkv, 2, 7).sum().backward()
        fk.dual_attention_unit(x.requires_grad_(), fk.DAUWeights(*weights)).sum().backward()
    attention = [fk.flops.attention_macs(2, 2, 20, 16, 7, "mixed", backward=b) for b in (False, True)]
    unit = [fk.flops.dual_attention_unit_macs(2, 3, 12, 10, backward=b) for b in (False, True)]
    assert counter.get_total_flops() == 2 * (sum(attention) + sum(unit))
