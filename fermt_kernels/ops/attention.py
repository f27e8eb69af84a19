"""Attention between template and search tokens, on separate or packed projections."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import checks, reference
from ..backends import BACKENDS, constant_size, resolve, resolve_backward
from ..reference.attention import statistics_dtype
from .registration import define, effective_dtype, needs_gradient, register_gradient
from .transforms import in_plain_pytorch


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_template: int,
    pattern: str = "mixed",
    *,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention softmax(scale q k^T) v, in which template queries and search queries each see one span of keys.

    Sums, maxima and the softmax are float32. The compiled backends make no N x N tensor, forward or backward.

    Args:
        q, k, v: (B, H, N, D), template tokens first; float32, bfloat16, float16 or float64, any strides.
        num_template: number of template tokens, n, of all templates together; the other N - n are search tokens.
        pattern: which keys each group of queries sees (Eq. 6 of the paper):
            "self" (A1): each group sees itself;
            "mixed" (A2, Eq. 3): template queries see template keys, search queries see all;
            "full" (A3): all queries see all keys;
            "one_way_cross" (A4): template queries see nothing, search queries see template keys;
            "cross" (A5, Eq. 3): each group sees the other.
            The output of a query that sees nothing is 0.
        scale: factor of the scores; D ** -0.5 if None.
        backend: "auto" or a name from `fermt_kernels.backends()`. A named backend never falls back to another.

    Returns:
        (B, H, N, D) in q's dtype, in memory as (B, N, H, D): `.transpose(1, 2).reshape(B, N, H * D)` copies nothing.

    Raises:
        TypeError, ValueError: an argument is not as described above; the message carries its value.
        RuntimeError: the named backend cannot run this; the message has the reason.
    """
    checks.not_symbolic("attention", q, k, v, num_template)
    num_template = checks.index(num_template)
    checks.attention("attention", q, k, v, num_template, pattern, scale)
    if in_plain_pytorch("attention", backend, q, k, v):
        scale = q.shape[3] ** -0.5 if scale is None else float(scale)
        q, k, v = (tensor.to(effective_dtype(tensor)) for tensor in (q, k, v))
        return reference.attention(q, k, v, num_template, pattern, scale)[0]
    size = constant_size("attention", q.shape[3])
    name = resolve("attention", backend, q.device.type, effective_dtype(q), needs_gradient(q, k, v), size)
    scale = q.shape[3] ** -0.5 if scale is None else float(scale)
    return torch.ops.fermt.attention(q, k, v, num_template, pattern, scale, name)[0]


def attention_packed(
    qkv: Tensor,
    num_heads: int,
    num_template: int,
    pattern: str = "mixed",
    *,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention on the output of one joint projection, as vision transformers have it, without permuting or copying it.

    Args:
        qkv: (B, N, 3 C), the projection's output: q, k and v side by side, each with its heads side by side.
        num_heads: H; the head dim is C / H.
        num_template, pattern, scale, backend: as for `attention`.

    Returns:
        (B, N, C), ready for the output projection.

    Raises:
        As `attention`.
    """
    checks.not_symbolic("attention_packed", qkv, num_template)
    num_heads, num_template = checks.index(num_heads), checks.index(num_template)
    checks.attention_packed("attention_packed", qkv, num_heads, num_template, pattern, scale)
    head_dim = qkv.shape[2] // (3 * num_heads)
    if in_plain_pytorch("attention_packed", backend, qkv):
        scale = head_dim**-0.5 if scale is None else float(scale)
        q, k, v = _split(qkv.to(effective_dtype(qkv)), num_heads)
        return reference.attention(q, k, v, num_template, pattern, scale)[0].transpose(1, 2).flatten(2)
    size = constant_size("attention", head_dim)
    name = resolve("attention", backend, qkv.device.type, effective_dtype(qkv), needs_gradient(qkv), size)
    scale = head_dim**-0.5 if scale is None else float(scale)
    return torch.ops.fermt.attention_packed(qkv, num_heads, num_template, pattern, scale, name)[0]


def mixed_attention(
    qkv: Tensor, num_heads: int, num_template: int, *, scale: float | None = None, backend: str = "auto"
) -> Tensor:
    """Attention with the pattern "mixed" (A_mixed of Eq. 3): `attention_packed`, (B, N, 3 C) -> (B, N, C)."""
    return attention_packed(qkv, num_heads, num_template, "mixed", scale=scale, backend=backend)


def cross_attention(
    qkv: Tensor, num_heads: int, num_template: int, *, scale: float | None = None, backend: str = "auto"
) -> Tensor:
    """Attention with the pattern "cross" (A_cross of Eq. 3): `attention_packed`, (B, N, 3 C) -> (B, N, C)."""
    return attention_packed(qkv, num_heads, num_template, "cross", scale=scale, backend=backend)


def _split(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of q, k and v, each (B, H, N, D), in the packed projection (B, N, 3 C)."""
    q, k, v = qkv.unflatten(2, (3, num_heads, qkv.shape[2] // (3 * num_heads))).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _as_heads(joined: Tensor, num_heads: int) -> Tensor:
    """A view (B, H, N, D) of (B, N, C)."""
    return joined.unflatten(2, (num_heads, joined.shape[2] // num_heads)).transpose(1, 2)


def _empty_heads(like: Tensor) -> Tensor:
    """An uninitialized (B, H, N, D) whose memory is that of (B, N, H, D)."""
    batch, heads, tokens, dim = like.shape
    return like.new_empty((batch, tokens, heads, dim)).transpose(1, 2)


def _empty_lse(qkv: Tensor, num_heads: int, tokens: int) -> Tensor:
    return qkv.new_empty((qkv.shape[0], num_heads, tokens), dtype=statistics_dtype(qkv.dtype))


def _attention_fake(q, k, v, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    return _empty_heads(q), _empty_lse(q, q.shape[1], q.shape[2])


def _attention(q, k, v, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    out, lse = _attention_fake(q, k, v, num_template, pattern, scale, backend)
    BACKENDS[backend].attention_forward(q, k, v, out, lse, num_template, pattern, scale)
    return out, lse


def _attention_backward_fake(grad_out, q, k, v, out, lse, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    return _empty_heads(q), _empty_heads(k), _empty_heads(v)


def _attention_backward(grad_out, q, k, v, out, lse, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    grads = _attention_backward_fake(grad_out, q, k, v, out, lse, num_template, pattern, scale, backend)
    BACKENDS[backend].attention_backward(grad_out, q, k, v, out, lse, *grads, num_template, pattern, scale)
    return grads


def _packed_fake(qkv, num_heads, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    batch, tokens, width = qkv.shape
    return qkv.new_empty((batch, tokens, width // 3)), _empty_lse(qkv, num_heads, tokens)


def _packed(qkv, num_heads, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    out, lse = _packed_fake(qkv, num_heads, num_template, pattern, scale, backend)
    heads = _as_heads(out, num_heads)
    BACKENDS[backend].attention_forward(*_split(qkv, num_heads), heads, lse, num_template, pattern, scale)
    return out, lse


def _packed_backward_fake(grad_out, qkv, out, lse, num_heads, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    return qkv.new_empty(qkv.shape)


def _packed_backward(grad_out, qkv, out, lse, num_heads, num_template, pattern, scale, backend):  # type: ignore[no-untyped-def]
    grad_qkv = qkv.new_empty(qkv.shape)
    grad_heads, heads = (_as_heads(t, num_heads) for t in (grad_out, out))
    q, k, v = _split(qkv, num_heads)
    BACKENDS[backend].attention_backward(
        grad_heads, q, k, v, heads, lse, *_split(grad_qkv, num_heads), num_template, pattern, scale
    )
    return grad_qkv


_TAIL = "SymInt num_template, str pattern, float scale, str backend"
define(f"attention(Tensor q, Tensor k, Tensor v, {_TAIL}) -> (Tensor, Tensor)", _attention, _attention_fake)
define(
    f"attention_backward(Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, {_TAIL})"
    " -> (Tensor, Tensor, Tensor)",
    _attention_backward,
    _attention_backward_fake,
)
define(f"attention_packed(Tensor qkv, int num_heads, {_TAIL}) -> (Tensor, Tensor)", _packed, _packed_fake)
define(
    f"attention_packed_backward(Tensor grad_out, Tensor qkv, Tensor out, Tensor lse, int num_heads, {_TAIL}) -> Tensor",
    _packed_backward,
    _packed_backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    tensors = tuple(x for x in inputs if isinstance(x, Tensor))
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    *ctx.settings, forward_backend = inputs[len(tensors) :]
    ctx.backend = resolve_backward("attention", forward_backend, tensors[0].device.type, tensors[0].dtype)


def _gradient(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple:
    grads = torch.ops.fermt.attention_backward(grad_out, *ctx.saved_tensors, *ctx.settings, ctx.backend)
    return (*grads, *(None for _ in ctx.settings), None)


def _packed_gradient(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple:
    grad = torch.ops.fermt.attention_packed_backward(grad_out, *ctx.saved_tensors, *ctx.settings, ctx.backend)
    return (grad, *(None for _ in ctx.settings), None)


register_gradient("attention", _gradient, _setup_context)
register_gradient("attention_packed", _packed_gradient, _setup_context)
