"""The specification of the Dual Attention Unit (Eq. 4 of the paper; module `DAU` of the authors' release)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..spec.dual_attention_unit import DAUWeights
from .linear import gelu

aten = torch.ops.aten


class Intermediates(NamedTuple):
    """Results of the forward pass that the backward pass needs: maps (B, C, H, W), vectors (B, C) or (B, hidden)."""

    before_gelu: Tensor
    u: Tensor
    depthwise: Tensor
    dilated: Tensor
    spatial: Tensor
    pooled: Tensor
    hidden: Tensor
    channel: Tensor


def _padding(weight: Tensor, dilation: int = 1) -> int:
    """Zeros on each side that keep the image's size."""
    return dilation * (weight.shape[-1] // 2)


def _forward(x: Tensor, weights: DAUWeights) -> tuple[Tensor, Intermediates]:
    w, channels, dilation = weights, x.shape[1], weights.sizes.dilation
    before_gelu = F.conv2d(x, w.proj_1_weight, w.proj_1_bias)
    u = gelu(before_gelu)
    depthwise = F.conv2d(u, w.conv0_weight, w.conv0_bias, padding=_padding(w.conv0_weight), groups=channels)
    dilated = F.conv2d(
        depthwise,
        w.conv_spatial_weight,
        w.conv_spatial_bias,
        padding=_padding(w.conv_spatial_weight, dilation),
        dilation=dilation,
        groups=channels,
    )
    spatial = F.conv2d(dilated, w.conv1_weight, w.conv1_bias)
    pooled = u.mean(dim=(2, 3))  # (B, C)
    hidden = F.linear(pooled, w.fc_0_weight)  # (B, hidden)
    channel = torch.sigmoid(F.linear(F.relu(hidden), w.fc_2_weight))  # (B, C)
    gated = channel[:, :, None, None] * spatial * u
    out = F.conv2d(gated, w.proj_2_weight, w.proj_2_bias) + x
    return out, Intermediates(before_gelu, u, depthwise, dilated, spatial, pooled, hidden, channel)


def dual_attention_unit(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The Dual Attention Unit, proj_2(s * f * u) + x with u = GELU(proj_1(x)), as short differentiable PyTorch.

    f = conv1(conv_spatial(conv0(u))), each padded with zeros to the image's size; s = sigmoid(fc2(relu(fc0(mean u)))).

    Args:
        x: (B, C, H, W).
        weights: the twelve tensors, in x's dtype and on its device; a `DAUWeights` or any
            sequence in its order.
    """
    return _forward(x, DAUWeights(*weights))[0]


def dual_attention_unit_forward(x: Tensor, weights: DAUWeights, out: Tensor) -> None:
    """Computes `dual_attention_unit` into `out`."""
    out.copy_(_forward(x, weights)[0])


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: DAUWeights, grad_x: Tensor, grads: DAUWeights
) -> None:
    """Computes the gradients of `dual_attention_unit` into `grad_x` and `grads`; the forward pass is recomputed."""
    dilation = weights.sizes.dilation
    _, middle = _forward(x, weights)
    channel = middle.channel[:, :, None, None]
    grad_gated, grad_proj_2, grad_proj_2_bias = _convolution_backward(
        grad_out, channel * middle.spatial * middle.u, weights.proj_2_weight
    )
    grad_channel = (grad_gated * middle.spatial * middle.u).sum(dim=(2, 3))  # (B, C)
    grad_logits = grad_channel * middle.channel * (1 - middle.channel)
    grad_hidden = aten.threshold_backward(grad_logits @ weights.fc_2_weight, middle.hidden, 0)
    grad_pooled = grad_hidden @ weights.fc_0_weight  # (B, C)

    grad_spatial = grad_gated * channel * middle.u
    grad_dilated, grad_conv1, grad_conv1_bias = _convolution_backward(
        grad_spatial, middle.dilated, weights.conv1_weight
    )
    grad_depthwise, grad_conv_spatial, grad_conv_spatial_bias = _convolution_backward(
        grad_dilated, middle.depthwise, weights.conv_spatial_weight, dilation
    )
    grad_u, grad_conv0, grad_conv0_bias = _convolution_backward(grad_depthwise, middle.u, weights.conv0_weight)
    grad_u = grad_u + grad_gated * channel * middle.spatial
    grad_u = grad_u + (grad_pooled / (x.shape[2] * x.shape[3]))[:, :, None, None]
    grad_before_gelu = aten.gelu_backward(grad_u, middle.before_gelu)
    grad_input, grad_proj_1, grad_proj_1_bias = _convolution_backward(grad_before_gelu, x, weights.proj_1_weight)

    grad_x.copy_(grad_input + grad_out)
    results = DAUWeights(
        proj_1_weight=grad_proj_1,
        proj_1_bias=grad_proj_1_bias,
        conv0_weight=grad_conv0,
        conv0_bias=grad_conv0_bias,
        conv_spatial_weight=grad_conv_spatial,
        conv_spatial_bias=grad_conv_spatial_bias,
        conv1_weight=grad_conv1,
        conv1_bias=grad_conv1_bias,
        fc_0_weight=grad_hidden.mT @ middle.pooled,
        fc_2_weight=grad_logits.mT @ F.relu(middle.hidden),
        proj_2_weight=grad_proj_2,
        proj_2_bias=grad_proj_2_bias,
    )
    for grad, result in zip(grads, results, strict=True):
        grad.copy_(result)


def _convolution_backward(
    grad: Tensor, inputs: Tensor, weight: Tensor, dilation: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a padded convolution's input, weight and bias."""
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
