"""Operation counts of the ops in closed form, also registered with `torch.utils.flop_counter`.

Only matrix and convolution products are counted. A MAC is one multiply and one add, two FLOPs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from . import ops  # noqa: F401  (the formulas below are for registered ops)
from .spec.dual_attention_unit import DAUWeights
from .spec.patterns import score_pairs


def attention_macs(
    batch: int, heads: int, tokens: int, head_dim: int, num_template: int, pattern: str, *, backward: bool = False
) -> int:
    """MACs of attention: the products q k^T and p v; backward has five (the scores again, then dp, dv, dq, dk)."""
    products = 5 if backward else 2
    return batch * heads * score_pairs(pattern, num_template, tokens) * head_dim * products


def dual_attention_unit_macs(
    batch: int,
    channels: int,
    height: int,
    width: int,
    *,
    kernel: int = 5,
    dilated_kernel: int = 5,
    hidden: int = 1,
    backward: bool = False,
) -> int:
    """MACs of the Dual Attention Unit: three 1x1 and two depth-wise convolutions, and the channel attention.

    Products with padding are counted too, as is usual. Backward has two products for each of the forward's, and
    recomputes the forward.
    """
    per_pixel = 3 * channels * channels + channels * (kernel**2 + dilated_kernel**2)
    forward = batch * (height * width * per_pixel + 2 * channels * hidden)
    return 3 * forward if backward else forward


def linear_macs(rows: int, inputs: int, outputs: int, *, products: int = 1) -> int:
    """MACs of a linear layer: one product forward, and one for each of the gradients of x and the weight."""
    return rows * inputs * outputs * products


@register_flop_formula(torch.ops.fermt.attention)
def _attention(
    q: tuple, k: tuple, v: tuple, num_template: int, pattern: str, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    batch, heads, tokens, head_dim = q
    return 2 * attention_macs(batch, heads, tokens, head_dim, num_template, pattern)


@register_flop_formula(torch.ops.fermt.attention_backward)
def _attention_backward(
    grad_out: tuple,
    q: tuple,
    k: tuple,
    v: tuple,
    out: tuple,
    lse: tuple,
    num_template: int,
    pattern: str,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    batch, heads, tokens, head_dim = q
    return 2 * attention_macs(batch, heads, tokens, head_dim, num_template, pattern, backward=True)


@register_flop_formula(torch.ops.fermt.attention_packed)
def _attention_packed(
    qkv: tuple, num_heads: int, num_template: int, pattern: str, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    batch, tokens, width = qkv
    return 2 * attention_macs(batch, num_heads, tokens, width // (3 * num_heads), num_template, pattern)


@register_flop_formula(torch.ops.fermt.attention_packed_backward)
def _attention_packed_backward(
    grad_out: tuple,
    qkv: tuple,
    out: tuple,
    lse: tuple,
    num_heads: int,
    num_template: int,
    pattern: str,
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    batch, tokens, width = qkv
    head_dim = width // (3 * num_heads)
    return 2 * attention_macs(batch, num_heads, tokens, head_dim, num_template, pattern, backward=True)


def _unit_macs(x: tuple, weights: tuple, backward: bool) -> int:
    """`weights` has the shapes of `DAUWeights`, and then the backend's name."""
    batch, channels, height, width = x
    shape = dict(zip(DAUWeights._fields, weights, strict=False))
    return dual_attention_unit_macs(
        batch,
        channels,
        height,
        width,
        kernel=shape["conv0_weight"][-1],
        dilated_kernel=shape["conv_spatial_weight"][-1],
        hidden=shape["fc_0_weight"][0],
        backward=backward,
    )


@register_flop_formula(torch.ops.fermt.dual_attention_unit)
def _dual_attention_unit(x: tuple, *weights: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * _unit_macs(x, weights, backward=False)


@register_flop_formula(torch.ops.fermt.dual_attention_unit_backward)
def _dual_attention_unit_backward(
    grad_out: tuple, x: tuple, *weights: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return 2 * _unit_macs(x, weights, backward=True)


@register_flop_formula(torch.ops.fermt.linear)
def _linear(x: tuple, weight: tuple, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    rows, inputs = x
    return 2 * linear_macs(rows, inputs, weight[0])


@register_flop_formula(torch.ops.fermt.linear_backward)
def _linear_backward(
    grad_out: tuple,
    x: tuple,
    weight: tuple,
    gelu: bool,
    dtype: torch.dtype,
    needs_grad: list[bool],
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    rows, inputs = x
    return 2 * linear_macs(rows, inputs, weight[0], products=sum(needs_grad[:2]))
