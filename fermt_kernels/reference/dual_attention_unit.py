"""The Dual Attention Unit (Eq. 4 of the paper; module `DAU` of the authors' release)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


class Intermediates(NamedTuple):
    """What the forward pass computes on its way; maps are (B, C, H, W), vectors (B, C) or (B, hidden)."""

    before_gelu: Tensor
    u: Tensor
    depthwise: Tensor
    dilated: Tensor
    spatial: Tensor
    pooled: Tensor
    hidden: Tensor
    channel: Tensor


def dilation_of(conv0_weight: Tensor) -> int:
    """Dilation of `conv_spatial`: a depth-wise kernel of 2 d - 1 precedes one of dilation d."""
    return (conv0_weight.shape[-1] + 1) // 2


def _padding(weight: Tensor, dilation: int = 1) -> int:
    return dilation * (weight.shape[-1] // 2)


def _forward(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Intermediates]:
    (p1_w, p1_b, c0_w, c0_b, cs_w, cs_b, c1_w, c1_b, fc0_w, fc2_w, p2_w, p2_b) = weights
    channels, dilation = x.shape[1], dilation_of(c0_w)
    before_gelu = F.conv2d(x, p1_w, p1_b)
    u = F.gelu(before_gelu)
    depthwise = F.conv2d(u, c0_w, c0_b, padding=_padding(c0_w), groups=channels)
    dilated = F.conv2d(depthwise, cs_w, cs_b, padding=_padding(cs_w, dilation), dilation=dilation, groups=channels)
    spatial = F.conv2d(dilated, c1_w, c1_b)
    pooled = u.mean(dim=(2, 3))  # (B, C)
    hidden = F.linear(pooled, fc0_w)  # (B, hidden)
    channel = torch.sigmoid(F.linear(F.relu(hidden), fc2_w))  # (B, C)
    gated = channel[:, :, None, None] * spatial * u
    out = F.conv2d(gated, p2_w, p2_b) + x
    return out, Intermediates(before_gelu, u, depthwise, dilated, spatial, pooled, hidden, channel)


def dual_attention_unit(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """proj_2(s * f * u) + x with u = GELU(proj_1(x)), f the spatial and s the channel attention of u.

    f = conv1(conv_spatial(conv0(u))), each padded with zeros to the image's size; s = sigmoid(fc2(relu(fc0(mean u)))).

    Args:
        x: (B, C, H, W).
        weights: the twelve tensors of `DAUWeights`, in its order.
    """
    return _forward(x, weights)[0]


def dual_attention_unit_forward(x: Tensor, weights: Sequence[Tensor], out: Tensor) -> None:
    """`dual_attention_unit`, written into `out`."""
    out.copy_(_forward(x, weights)[0])


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: Sequence[Tensor], grad_x: Tensor, grads: Sequence[Tensor]
) -> None:
    """Gradients of `dual_attention_unit`, recomputed from x, written into `grad_x` and `grads` (weights' order)."""
    (p1_w, _, c0_w, _, cs_w, _, c1_w, _, fc0_w, fc2_w, p2_w, _) = weights
    dilation = dilation_of(c0_w)
    _, middle = _forward(x, weights)
    channel = middle.channel[:, :, None, None]

    def convolution_backward(
        grad: Tensor, inputs: Tensor, weight: Tensor, dilation: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        depthwise = weight.shape[1] == 1 and inputs.shape[1] > 1
        padding = _padding(weight, dilation)
        return aten.convolution_backward(
            grad,
            inputs,
            weight,
            [weight.shape[0]],
            [1, 1],
            [padding, padding],
            [dilation, dilation],
            False,
            [0, 0],
            inputs.shape[1] if depthwise else 1,
            [True, True, True],
        )

    grad_gated, grad_p2_w, grad_p2_b = convolution_backward(grad_out, channel * middle.spatial * middle.u, p2_w)
    grad_channel = (grad_gated * middle.spatial * middle.u).sum(dim=(2, 3))  # (B, C)
    grad_logits = grad_channel * middle.channel * (1 - middle.channel)
    grad_fc2_w = grad_logits.mT @ F.relu(middle.hidden)
    grad_hidden = (grad_logits @ fc2_w) * (middle.hidden > 0)
    grad_fc0_w = grad_hidden.mT @ middle.pooled
    grad_pooled = grad_hidden @ fc0_w  # (B, C)

    grad_spatial = grad_gated * channel * middle.u
    grad_dilated, grad_c1_w, grad_c1_b = convolution_backward(grad_spatial, middle.dilated, c1_w)
    grad_depthwise, grad_cs_w, grad_cs_b = convolution_backward(grad_dilated, middle.depthwise, cs_w, dilation)
    grad_u, grad_c0_w, grad_c0_b = convolution_backward(grad_depthwise, middle.u, c0_w)
    grad_u = grad_u + grad_gated * channel * middle.spatial
    grad_u = grad_u + (grad_pooled / (x.shape[2] * x.shape[3]))[:, :, None, None]
    grad_before_gelu = aten.gelu_backward(grad_u, middle.before_gelu)
    grad_input, grad_p1_w, grad_p1_b = convolution_backward(grad_before_gelu, x, p1_w)

    grad_x.copy_(grad_input + grad_out)
    results = (
        grad_p1_w, grad_p1_b, grad_c0_w, grad_c0_b, grad_cs_w, grad_cs_b,
        grad_c1_w, grad_c1_b, grad_fc0_w, grad_fc2_w, grad_p2_w, grad_p2_b,
    )  # fmt: skip
    for grad, result in zip(grads, results, strict=True):
        grad.copy_(result)
