"""Modules with the parameters and state-dict keys of the authors' release that compute with this package's ops."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from . import checks
from .backends import requested
from .children import is_plain
from .ops import attention_packed, dual_attention_unit, linear
from .spec.dual_attention_unit import STATE_KEYS, DAUWeights

for _name in ("attention_packed", "dual_attention_unit", "linear", "_if_autocast"):
    torch.fx.wrap(_name)  # torch.fx.symbolic_trace records a call and does not look inside


def _if_autocast(dtype: torch.dtype | None, x: Tensor) -> torch.dtype | None:
    """A dtype where autocast is on for x's device, None elsewhere."""
    return dtype if checks.autocasts(x.device.type) else None


class Linear(nn.Linear):
    """A `torch.nn.Linear` that computes with `fermt_kernels.linear`, and on request with the GELU before it.

    Args:
        in_features, out_features, bias: as of `torch.nn.Linear`.
        out_dtype: dtype of the result under autocast; None for autocast's.
        backend: "auto" or a name from `fermt_kernels.backends()`.
        device, dtype: of the parameters.

    State-dict keys: `weight`, `bias`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        out_dtype: torch.dtype | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        requested(backend)
        self.out_dtype, self.backend = out_dtype, backend

    def forward(self, input: Tensor, gelu: bool = False) -> Tensor:
        """Input (..., in_features) -> (..., out_features); with `gelu` of GELU(input), which is not stored."""
        out_dtype = _if_autocast(self.out_dtype, input)
        return linear(input, self.weight, self.bias, gelu=gelu, out_dtype=out_dtype, backend=self.backend)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, backend={self.backend!r}"


class PatchEmbed(nn.Module):
    """Patch embedding: images (B, 3, H, W) -> tokens (B, HW / P^2, C), row by row.

    Patches do not overlap, so that the convolution is computed as one matrix product.

    Args:
        patch_size: P, which must divide H and W.
        dim: C, channels of a token.
        backend: "auto" or a name from `fermt_kernels.backends()`.
        device, dtype: of the parameters.

    State-dict keys: `proj.weight`, `proj.bias`, with a convolution's shapes.
    """

    def __init__(
        self,
        patch_size: int,
        dim: int,
        *,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        requested(backend)
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size, device=device, dtype=dtype)
        self.backend = backend

    def forward(self, images: Tensor) -> Tensor:
        if not (is_plain(self.proj) and self._takes_patches()):  # wrapped, hooked or another one: it is called
            return self.proj(images).flatten(2).transpose(1, 2)
        size = self.proj.kernel_size[0]
        grid = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (B, 3, rows, P, columns, P)
        patches = grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, HW / P^2, 3 P^2)
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias, backend=self.backend)

    def _takes_patches(self) -> bool:
        """Whether the convolution, which may have been replaced, is one of square patches that do not overlap."""
        proj, size = self.proj, self.proj.kernel_size
        plain = proj.padding in ((0, 0), "valid") and tuple(proj.dilation) == (1, 1) and proj.groups == 1
        return plain and size[0] == size[1] and tuple(proj.stride) == tuple(size)

    def extra_repr(self) -> str:
        return f"backend={self.backend!r}"


class TemplateSearchAttention(nn.Module):
    """Multi-head attention over template and search tokens (the authors' `Attention`).

    Args:
        dim: C, channels of a token.
        num_heads: H; the head dim is C / H.
        pattern: which keys each group of queries sees; see `fermt_kernels.attention`.
        qkv_bias: whether the joint projection has a bias.
        scale: factor of the scores; head_dim ** -0.5 if None.
        out_dtype: dtype of the result under autocast; None for autocast's.
        backend: "auto" or a name from `fermt_kernels.backends()`.
        device, dtype: of the parameters.

    State-dict keys: `qkv.weight`, `qkv.bias`, `proj.weight`, `proj.bias`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        pattern: str = "mixed",
        *,
        qkv_bias: bool = True,
        scale: float | None = None,
        out_dtype: torch.dtype | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dim, num_heads = checks.index(dim), checks.index(num_heads)
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads; got dim {dim} and num_heads {num_heads}")
        checks.pattern("TemplateSearchAttention", pattern)
        requested(backend)
        self.num_heads = num_heads
        self.pattern = pattern
        self.scale = scale
        self.backend = backend
        made: dict[str, Any] = {"backend": backend, "device": device, "dtype": dtype}
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **made)
        self.proj = Linear(dim, dim, out_dtype=out_dtype, **made)

    def forward(self, x: Tensor, num_template: int) -> Tensor:
        """Tokens (B, N, C), template first -> (B, N, C). For a query that sees nothing it is the projection's bias."""
        heads = attention_packed(
            self.qkv(x), self.num_heads, num_template, self.pattern, scale=self.scale, backend=self.backend
        )
        return self.proj(heads)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, pattern={self.pattern!r}, backend={self.backend!r}"


class _SpatialGatingUnit(nn.Module):
    """Container of the parameters of spatial and channel attention under the authors' names."""

    def __init__(self, channels: int, reduction_channels: int, **made: Any) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, **made)
        self.conv_spatial = nn.Conv2d(channels, channels, 5, padding=6, groups=channels, dilation=3, **made)
        self.conv1 = nn.Conv2d(channels, channels, 1, **made)
        self.fc = nn.Sequential(
            nn.Linear(channels, reduction_channels, bias=False, **made),
            nn.ReLU(),
            nn.Linear(reduction_channels, channels, bias=False, **made),
            nn.Sigmoid(),
        )


FC_LAYERS = (nn.Linear, nn.ReLU, nn.Linear, nn.Sigmoid)  # of the channel attention


def _is_same(layer: nn.Conv2d, groups: int, dilation: int) -> bool:
    """Whether a convolution has a bias and keeps the image's size by zeros around it."""
    padding = dilation * (layer.kernel_size[0] // 2)
    return (
        tuple(layer.stride) == (1, 1)
        and tuple(layer.dilation) == (dilation, dilation)
        and tuple(layer.padding) == (padding, padding)
        and layer.groups == groups
        and layer.padding_mode == "zeros"
        and layer.bias is not None
    )


class DualAttentionUnit(nn.Module):
    """Dual Attention Unit, (B, C, H, W) -> (B, C, H, W) (the authors' `DAU`; Eq. 4 of the paper).

    Args:
        channels: C; the model applies the unit to the image itself, C = 3.
        hidden: width of the channel attention's bottleneck.
        backend: "auto" or a name from `fermt_kernels.backends()`.
        device, dtype: of the parameters.

    State-dict keys: `proj_1.*`, `spatial_gating_unit.{conv0,conv_spatial,conv1,fc.0,fc.2}.*`, `proj_2.*`.
    """

    def __init__(
        self,
        channels: int = 3,
        hidden: int = 1,
        *,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        requested(backend)
        self.backend = backend
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        self.proj_1 = nn.Conv2d(channels, channels, 1, **made)
        self.spatial_gating_unit = _SpatialGatingUnit(channels, hidden, **made)
        self.proj_2 = nn.Conv2d(channels, channels, 1, **made)

    def weights(self) -> DAUWeights:
        """The module's weights as the op takes them: parameters, or what has taken their place."""
        return DAUWeights(*(attrgetter(key)(self) for key in STATE_KEYS.values()))

    def forward(self, x: Tensor) -> Tensor:
        if self._is_fused():
            return dual_attention_unit(x, self.weights(), backend=self.backend)
        return self._called(x)

    def _is_fused(self) -> bool:
        """Whether the layers, which may have been replaced, are those that the op computes, to be read and not called.

        Each call asks, so attributes of modules are read once each: the op itself takes few times as long.
        """
        gate, proj_1, proj_2 = self.spatial_gating_unit, self.proj_1, self.proj_2
        conv0, conv_spatial, conv1, fc = gate.conv0, gate.conv_spatial, gate.conv1, gate.fc
        if not all(map(is_plain, (proj_1, *gate.children(), proj_2))):
            return False
        if type(fc) is not nn.Sequential or tuple(map(type, fc)) != FC_LAYERS:
            return False
        if fc[0].bias is not None or fc[2].bias is not None:
            return False
        channels, dilation = conv0.in_channels, (conv0.kernel_size[0] + 1) // 2
        pointwise = all(_is_same(layer, 1, 1) for layer in (proj_1, conv1, proj_2))
        return pointwise and _is_same(conv0, channels, 1) and _is_same(conv_spatial, channels, dilation)

    def _called(self, x: Tensor) -> Tensor:
        """The same, each layer called, for layers that somebody has wrapped or hooked."""
        u, gate = F.gelu(self.proj_1(x)), self.spatial_gating_unit
        spatial = gate.conv1(gate.conv_spatial(gate.conv0(u)))
        return self.proj_2(gate.fc(u.mean((2, 3)))[:, :, None, None] * spatial * u) + x

    def extra_repr(self) -> str:
        return f"backend={self.backend!r}"
