"""The model in plain PyTorch without this package's ops, for exporters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor

from fermt_kernels import reference
from fermt_kernels.modules import DualAttentionUnit, Linear, PatchEmbed, TemplateSearchAttention
from fermt_kernels.patterns import key_spans
from fermt_kernels.wrapped import unwrapped

from ..model import FERMT


class PlainAttention(nn.Module):
    """The attention module with a dense softmax for each group of queries.

    The reference keeps the logarithm of each sum for its gradient; runtimes are faster with a plain softmax.
    """

    def __init__(self, ours: TemplateSearchAttention) -> None:
        super().__init__()
        self.qkv, self.proj = ours.qkv, ours.proj
        self.num_heads, self.pattern = ours.num_heads, ours.pattern
        self.scale = (ours.proj.in_features // ours.num_heads) ** -0.5 if ours.scale is None else ours.scale

    def forward(self, x: Tensor, num_template: int) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q = q * self.scale
        outputs = []
        for rows, span in zip(
            (q[:, :, :num_template], q[:, :, num_template:]),
            key_spans(self.pattern, num_template, tokens),
            strict=True,
        ):
            keys, values = k[:, :, span[0] : span[1]], v[:, :, span[0] : span[1]]
            # Few runtimes support products with empty tensors.
            seen = (rows @ keys.transpose(-2, -1)).softmax(dim=-1) @ values if any(span) else torch.zeros_like(rows)
            outputs.append(seen)
        return self.proj(torch.cat(outputs, dim=2).transpose(1, 2).reshape(batch, tokens, dim))


class PlainDualAttentionUnit(nn.Module):
    """The Dual Attention Unit in eager PyTorch."""

    def __init__(self, ours: DualAttentionUnit) -> None:
        super().__init__()
        self.unit = ours

    def forward(self, x: Tensor) -> Tensor:
        return reference.dual_attention_unit(x, self.unit.weights())


def plain_linear(ours: Linear) -> nn.Linear:
    """PyTorch's linear layer with the same parameters."""
    with torch.device("meta"):
        plain = nn.Linear(ours.in_features, ours.out_features, ours.bias is not None)
    plain.weight, plain.bias = ours.weight, ours.bias
    return plain


class PlainPatchEmbed(nn.Module):
    """The patch embedding as a convolution."""

    def __init__(self, ours: PatchEmbed) -> None:
        super().__init__()
        self.proj = ours.proj

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


_PLAIN: dict[type[nn.Module], Callable[..., nn.Module]] = {
    TemplateSearchAttention: PlainAttention,
    DualAttentionUnit: PlainDualAttentionUnit,
    Linear: plain_linear,
    PatchEmbed: PlainPatchEmbed,
}


def plain_model(model: FERMT) -> FERMT:
    """Copies a model with its weights, without this package's ops."""
    plain: FERMT = copy.deepcopy(unwrapped(model))
    for name, module in list(plain.named_modules()):
        if build := _PLAIN.get(type(module)):
            plain.set_submodule(name, build(module))
    return plain
