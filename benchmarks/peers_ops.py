"""What the ops are compared with: the same attention and the same unit in plain PyTorch, in every form it offers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.patterns import key_spans

from .cases import AttentionCase

OURS = "fermt"
Attention = Callable[..., Tensor]  # (qkv, case) -> tokens


def _heads(qkv: Tensor, case: AttentionCase) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, _ = qkv.shape
    q, k, v = qkv.reshape(batch, tokens, 3, case.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _tokens(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def _by_group(attend: Callable[..., Tensor], qkv: Tensor, case: AttentionCase) -> Tensor:
    """One dense attention for each query group, as the authors write it; 0 for a group that sees nothing.

    Not the reference, which also computes `lse` and is slower.
    """
    q, k, v = _heads(qkv, case)
    outputs = []
    for rows, span in zip(
        (slice(0, case.n), slice(case.n, case.tokens)), key_spans(case.pattern, case.n, case.tokens), strict=True
    ):
        keys = slice(*span)
        outputs.append(attend(q[:, :, rows], k[:, :, keys], v[:, :, keys]))
    return _tokens(torch.cat(outputs, dim=2))


def _softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v


@cache
def _mask(pattern: str, n: int, tokens: int, device: torch.device) -> Tensor:
    mask = torch.zeros(tokens, tokens, dtype=torch.bool, device=device)
    spans = key_spans(pattern, n, tokens)
    mask[:n, slice(*spans.template)] = True
    mask[n:, slice(*spans.search)] = True
    return mask


def _masked_sdpa(qkv: Tensor, case: AttentionCase) -> Tensor:
    q, k, v = _heads(qkv, case)
    mask = _mask(case.pattern, case.n, case.tokens, q.device)
    return _tokens(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


@cache
def _block_mask(pattern: str, n: int, tokens: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    template, search = key_spans(pattern, n, tokens)

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        by_template = (key >= template[0]) & (key < template[1])
        return torch.where(query < n, by_template, (key >= search[0]) & (key < search[1]))

    return create_block_mask(seen, None, None, tokens, tokens, device=str(device))


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex_attention(qkv: Tensor, case: AttentionCase) -> Tensor:
    """FlexAttention, compiled, with a block mask of the pattern."""
    q, k, v = _heads(qkv, case)
    mask = _block_mask(case.pattern, case.n, case.tokens, q.device)
    return _tokens(_compiled_flex()(q, k, v, block_mask=mask))


def _ours(qkv: Tensor, case: AttentionCase) -> Tensor:
    return fk.attention_packed(qkv, case.heads, case.n, case.pattern)


eager_attention: Attention = partial(_by_group, _softmax)

ATTENTION: dict[str, Attention] = {
    OURS: _ours,
    "eager": eager_attention,
    "SDPA a group": partial(_by_group, F.scaled_dot_product_attention),
    "SDPA, mask": _masked_sdpa,
}


def _our_unit(x: Tensor, *weights: Tensor) -> Tensor:
    return fk.dual_attention_unit(x, fk.DAUWeights(*weights))


def eager_unit(x: Tensor, *tensors: Tensor) -> Tensor:
    """The unit in eager PyTorch: the reference, without the op around it."""
    return fk.reference.dual_attention_unit(x, tensors)


UNIT: dict[str, Callable[..., Tensor]] = {OURS: _our_unit, "eager": eager_unit}
