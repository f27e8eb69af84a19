"""Checks of the ops' arguments. Every error message has the value and the expected form.

The first argument, `op`, is the function's name for the message.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch

from .spec.dual_attention_unit import DAUWeights
from .spec.patterns import PATTERNS

FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def autocasts(device_type: str) -> bool:
    """Whether autocast is on for a device; never for one that has none, such as meta."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def pattern(op: str, value: str) -> None:
    """Checks that the pattern exists."""
    if value not in PATTERNS:
        raise ValueError(f"{op}: unknown pattern {value!r}; expected one of {', '.join(PATTERNS)}")


def not_symbolic(op: str, *values: Any) -> None:
    """Refuses what `torch.fx.symbolic_trace` passes in place of tensors, which has no shape to check."""
    if any(isinstance(value, torch.fx.Proxy) for value in values):
        raise TypeError(
            f"{op}: torch.fx.symbolic_trace cannot look into this op; make it a leaf by torch.fx.wrap({op!r}), use "
            "torch.export, or restore the model first (fermt_kernels.unswap)"
        )


def index(value: Any) -> Any:
    """An integer of any kind (NumPy's, a 0-dimensional array's) as an int; everything else as it is, to be refused.

    While `torch.jit.trace` runs, sizes are tensors: they become constants, of which PyTorch warns.
    """
    if isinstance(value, torch.Tensor) and torch.jit.is_tracing():
        return int(value)
    if torch.compiler.is_compiling() or isinstance(value, (int, torch.Tensor, torch.SymInt)):
        return value
    return operator.index(value) if hasattr(value, "__index__") else value


def num_template(op: str, value: int, tokens: int | None = None) -> None:
    """Checks that the number of template tokens is an int from 0 to the number of tokens, if that is given."""
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(f"{op}: num_template must be an int, got {value!r}")
    if tokens is None:
        if value < 0:
            raise ValueError(f"{op}: num_template must be at least 0, got {value}")
    elif not 0 <= value <= tokens:
        raise ValueError(f"{op}: num_template must lie in [0, {tokens}], the number of tokens; got {value}")


def scale(op: str, value: float | None) -> None:
    """Checks that the scale is a number or None."""
    if value is not None and not isinstance(value, (int, float, torch.SymFloat, Real)):
        raise TypeError(f"{op}: scale must be a number or None for head_dim ** -0.5, got {value!r}")


def float_tensor(op: str, name: str, value: torch.Tensor, layout: str) -> None:
    """Checks type, dtype and number of dimensions; `layout` names the dimensions, such as "(B, H, N, D)"."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a tensor of shape {layout}, got {type(value).__name__}")
    if value.dim() != layout.count(",") + 1:
        raise ValueError(f"{op}: {name} must have shape {layout}, got {tuple(value.shape)}")
    float_dtype(op, name, value)
    if value.layout != torch.strided:
        raise TypeError(f"{op}: {name} must be a tensor with strides, got one of layout {value.layout}")


def float_dtype(op: str, name: str, value: torch.Tensor) -> None:
    """Checks that the tensor has one of `FLOAT_DTYPES`."""
    if value.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{op}: {name} must be one of {_names(FLOAT_DTYPES)}, got {value.dtype}")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def same_kind(op: str, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
    """Checks that all tensors have the first one's dtype and device."""
    first = tensors[0]
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.dtype != first.dtype:
            raise TypeError(f"{op}: {name} must have the dtype of {names[0]}, {first.dtype}; got {tensor.dtype}")
        if tensor.device != first.device:
            raise ValueError(f"{op}: {name} must be on {first.device}, where {names[0]} is; got {tensor.device}")


def attention(
    op: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    n: int,
    pattern_name: str,
    scale_value: float | None,
) -> None:
    """Checks the arguments of `attention`."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        float_tensor(op, name, tensor, "(B, H, N, D)")
        if tensor.shape != q.shape:
            raise ValueError(f"{op}: {name} must have the shape of q, {tuple(q.shape)}; got {tuple(tensor.shape)}")
    if q.shape[3] == 0:
        raise ValueError(f"{op}: the head dim must be at least 1, got shape {tuple(q.shape)}")
    same_kind(op, ("q", "k", "v"), (q, k, v))
    num_template(op, n, q.shape[2])
    pattern(op, pattern_name)
    scale(op, scale_value)


def attention_packed(
    op: str, qkv: torch.Tensor, num_heads: int, n: int, pattern_name: str, scale_value: float | None
) -> None:
    """Checks the arguments of `attention_packed`."""
    float_tensor(op, "qkv", qkv, "(B, N, 3 C)")
    if isinstance(num_heads, bool) or not isinstance(num_heads, int) or num_heads < 1:
        raise ValueError(f"{op}: num_heads must be a positive int, got {num_heads!r}")
    if qkv.shape[2] == 0 or qkv.shape[2] % (3 * num_heads):
        raise ValueError(
            f"{op}: the last dimension of qkv must be 3 * num_heads * head_dim with num_heads = {num_heads}; "
            f"got {qkv.shape[2]} in shape {tuple(qkv.shape)}"
        )
    num_template(op, n, qkv.shape[1])
    pattern(op, pattern_name)
    scale(op, scale_value)


def dual_attention_unit(op: str, x: torch.Tensor, weights: DAUWeights) -> None:
    """Checks that the image has pixels, and that all weights have its dtype, its device and shapes that fit."""
    names = weights._fields
    float_tensor(op, "x", x, "(B, C, H, W)")
    channels = x.shape[1]
    if x.shape[2] * x.shape[3] == 0 or channels == 0:
        raise ValueError(f"{op}: x must have at least one channel and one pixel, got {tuple(x.shape)}")
    for name, weight in zip(names, weights, strict=True):
        if not isinstance(weight, torch.Tensor):
            raise TypeError(f"{op}: weight {name} must be a tensor, got {type(weight).__name__}")
    same_kind(op, ("x", *names), (x, *weights))
    sizes = {name: tuple(weight.shape) for name, weight in zip(names, weights, strict=True)}
    hidden = sizes["fc_0_weight"][0] if len(sizes["fc_0_weight"]) == 2 else 1
    expected: dict[str, tuple[int, ...]] = {name: (channels,) for name in names if name.endswith("bias")}
    expected |= dict.fromkeys(("proj_1_weight", "conv1_weight", "proj_2_weight"), (channels, channels, 1, 1))
    expected |= {"fc_0_weight": (hidden, channels), "fc_2_weight": (channels, hidden)}
    for name, shape in expected.items():
        if sizes[name] != shape:
            raise ValueError(f"{op}: weight {name} must have shape {shape}, got {sizes[name]}")
    for name in ("conv0_weight", "conv_spatial_weight"):
        shape = sizes[name]
        if len(shape) != 4 or shape[:2] != (channels, 1) or shape[2] != shape[3] or shape[2] % 2 == 0:
            raise ValueError(f"{op}: weight {name} must have shape ({channels}, 1, K, K) with K odd, got {shape}")


def linear(
    op: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out_dtype: torch.dtype | None
) -> None:
    """Checks the arguments of `linear`: shapes that fit, and without autocast one dtype and device."""
    if out_dtype is not None and out_dtype not in FLOAT_DTYPES:
        raise TypeError(f"{op}: out_dtype must be None or one of {_names(FLOAT_DTYPES)}, got {out_dtype!r}")
    named = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    for name, tensor in named.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"{op}: weight must have shape (N, K), neither 0; got {tuple(weight.shape)}")
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{op}: x must have shape (..., {weight.shape[1]}), as weight has; got {tuple(x.shape)}")
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"{op}: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
    for name, tensor in named.items():
        float_dtype(op, name, tensor)
    if not autocasts(x.device.type):
        same_kind(op, tuple(named), tuple(named.values()))
    elif odd := [
        name for name, tensor in named.items() if (tensor.dtype == torch.float64) != (x.dtype == torch.float64)
    ]:
        raise TypeError(
            f"{op}: autocast leaves float64 alone; {', '.join(odd)} must be {x.dtype}, got {named[odd[0]].dtype}"
        )
    for name, tensor in named.items():
        if tensor.device != x.device:
            raise ValueError(f"{op}: {name} must be on {x.device}, where x is; got {tensor.device}")
