"""The specification of attention in which each group of queries sees one span of keys (Eq. 1 to 3 and 6)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..spec.patterns import key_spans


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of scores, maxima, sums and `lse`: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _wide(t: Tensor) -> Tensor:
    """float16 as float32, for its products may exceed float16's range; anything else as it is."""
    return t.float() if t.dtype == torch.float16 else t


def groups(pattern: str, num_template: int, num_tokens: int) -> Iterator[tuple[slice, slice]]:
    """The template queries and the search queries as slices, each with the slice of keys that they see."""
    template_keys, search_keys = key_spans(pattern, num_template, num_tokens)
    yield slice(0, num_template), slice(*template_keys)
    yield slice(num_template, num_tokens), slice(*search_keys)


def attention(q: Tensor, k: Tensor, v: Tensor, num_template: int, pattern: str, scale: float) -> tuple[Tensor, Tensor]:
    """Attention softmax(scale q k^T) v, in which each group of queries sees one span of keys.

    Args:
        q, k, v: (B, H, N, D), template tokens first.
        num_template: tokens of the template group.
        pattern: one of `PATTERNS`.
        scale: factor of the scores.

    Returns:
        The output (B, H, N, D) in q's dtype, and `lse` (B, H, N), the logarithm of each query's sum of exponentials, in
        float32 (float64 for float64). For a group that sees nothing the output is 0 and `lse` is -inf.
    """
    outputs, lses = [], []
    for rows, keys in groups(pattern, num_template, q.shape[2]):
        scores = _scores(q[:, :, rows], k[:, :, keys], scale)
        lse = torch.logsumexp(scores, dim=-1)  # (B, H, rows); -inf where there are no keys
        probabilities = torch.softmax(scores, dim=-1).to(q.dtype)  # exp(scores - lse) is inexact for large scores
        outputs.append(probabilities @ v[:, :, keys])  # (B, H, rows, D); 0 where there are no keys
        lses.append(lse)
    return torch.cat(outputs, dim=2), torch.cat(lses, dim=2)


def _scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """scale q k^T, (B, H, rows, keys), in `statistics_dtype`."""
    return (_wide(q) @ _wide(k).transpose(-2, -1)).to(statistics_dtype(q.dtype)) * scale


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Computes `attention` into `out` and `lse`."""
    result, result_lse = attention(q, k, v, num_template, pattern, scale)
    out.copy_(result)
    lse.copy_(result_lse)


def attention_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    num_template: int,
    pattern: str,
    scale: float,
) -> None:
    """Computes the gradients of `attention` into `grad_q`, `grad_k` and `grad_v`, recomputing scores with `lse`."""
    for grad in (grad_q, grad_k, grad_v):
        grad.zero_()
    for rows, keys in groups(pattern, num_template, q.shape[2]):
        q_rows, k_keys, v_keys, grad_rows = q[:, :, rows], k[:, :, keys], v[:, :, keys], grad_out[:, :, rows]
        probabilities = torch.softmax(_scores(q_rows, k_keys, scale), dim=-1)
        delta = (_wide(grad_rows) * out[:, :, rows]).to(lse.dtype).sum(-1, keepdim=True)  # (B, H, rows, 1)
        grad_probabilities = (_wide(grad_rows) @ _wide(v_keys).mT).to(lse.dtype)
        grad_scores = (probabilities * (grad_probabilities - delta) * scale).to(q.dtype)
        grad_q[:, :, rows] = grad_scores @ k_keys
        grad_k[:, :, keys] += grad_scores.mT @ q_rows
        grad_v[:, :, keys] += probabilities.to(q.dtype).mT @ grad_rows
