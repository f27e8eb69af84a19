"""Launches of the attention kernels, and their block sizes as tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from ..layouts import last_contiguous
from ..spec.patterns import key_spans
from .kernels.attention_backward import attention_backward_kernel
from .kernels.attention_backward_long import attention_backward_keys_kernel, attention_backward_queries_kernel
from .kernels.attention_forward import attention_forward_kernel
from .launch import Blocks, Tuning, dot_precision, launch
from .measured import architecture, sizes

LOG2E = math.log2(math.e)


# By bytes of an element and padded head dim. Sizes divide the model's 64 and 256 tokens, so that no block is partly
# empty, and are the largest that spill on no architecture (python -m benchmarks.gpu.triton_aot). In 16 bits at head
# dim 16 half as many keys take half the registers, so that more warps run and hide the latency of exponentials.
FORWARD = {
    (2, 16): Blocks(64, 32, Tuning(4, 2)),
    (2, 32): Blocks(64, 64, Tuning(4, 2)),
    (2, 64): Blocks(64, 64, Tuning(4, 2)),
    (2, 128): Blocks(64, 32, Tuning(4, 2)),
    (4, 16): Blocks(32, 32, Tuning(4, 1)),
    (4, 32): Blocks(32, 32, Tuning(4, 1)),
    (4, 64): Blocks(32, 16, Tuning(4, 1)),
    (4, 128): Blocks(16, 32, Tuning(4, 1)),
}
# One program for each head, for groups of at most `m` queries: the model's search group has 256. Wider heads and
# float32 would spill registers, and use the two kernels below; so would twice the warps.
BACKWARD = {(2, 16): Blocks(256, 32, Tuning(8, 1))}
# Two kernels, for any length and for heads that do not fit one program's registers. The wider the head, the smaller
# the blocks: the largest that spill on no architecture, found by compiling ahead of time.
BACKWARD_QUERIES = {
    (2, 16): Blocks(64, 64, Tuning(4, 1)),
    (2, 32): Blocks(64, 64, Tuning(4, 1)),
    (2, 64): Blocks(32, 64, Tuning(4, 1)),
    (2, 128): Blocks(32, 32, Tuning(8, 1)),
    (4, 16): Blocks(32, 32, Tuning(4, 1)),
    (4, 32): Blocks(32, 32, Tuning(4, 1)),
    (4, 64): Blocks(16, 32, Tuning(4, 1)),
    (4, 128): Blocks(16, 16, Tuning(8, 1)),
}
BACKWARD_KEYS = {
    (2, 16): Blocks(64, 64, Tuning(4, 1)),
    (2, 32): Blocks(64, 64, Tuning(4, 1)),
    (2, 64): Blocks(32, 32, Tuning(4, 1)),
    (2, 128): Blocks(32, 32, Tuning(8, 1)),
    (4, 16): Blocks(32, 16, Tuning(4, 1)),
    (4, 32): Blocks(16, 32, Tuning(4, 1)),
    (4, 64): Blocks(16, 32, Tuning(4, 1)),
    (4, 128): Blocks(16, 16, Tuning(8, 1)),
}
TABLES = {
    "FORWARD": FORWARD,
    "BACKWARD": BACKWARD,
    "BACKWARD_QUERIES": BACKWARD_QUERIES,
    "BACKWARD_KEYS": BACKWARD_KEYS,
}


def _with_strides(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The tensors, and the first three strides of those with four dimensions, under the kernels' parameter names."""
    strides = {name.replace("_ptr", "_strides"): t.stride()[:3] for name, t in tensors.items() if t.dim() == 4}
    return tensors | strides


def _shape(q: Tensor, num_template: int, pattern: str) -> dict[str, Any]:
    template, search = key_spans(pattern, num_template, q.shape[2])
    return {
        "heads": q.shape[1],
        "tokens": q.shape[2],
        "num_template": num_template,
        "spans": (*template, *search),
    }


def _key(q: Tensor) -> tuple[int, int]:
    """Key of the tables of block sizes: bytes of an element, and padded head dim."""
    return q.element_size(), max(16, next_power_of_2(q.shape[3]))


def _blocks(name: str, q: Tensor) -> Blocks:
    """The block sizes of a table for this GPU."""
    size, dim = _key(q)
    return sizes(architecture(q.device), name, size, dim, TABLES[name][size, dim])


def _token_blocks(q: Tensor, num_template: int, size: int) -> int:
    """Number of blocks of queries, or of keys, of a head; no block has tokens of both groups."""
    return cdiv(num_template, size) + cdiv(q.shape[2] - num_template, size)


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Computes attention of q, k, v (B, H, N, D) into `out` (last dimension contiguous) and `lse` (B, H, N)."""
    template, search = key_spans(pattern, num_template, q.shape[2])
    q, k, v = last_contiguous(q), last_contiguous(k), last_contiguous(v)
    forward_on(q, k, v, out, lse, num_template, (*template, *search), scale)


def forward_on(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    num_template: int,
    spans: tuple[int, int, int, int],
    scale: float,
    blocks: Blocks | None = None,
) -> None:
    """Attention whose first `num_template` queries see the first span of keys, and the others the second.

    There may be more keys than queries. Last dimensions are contiguous; `lse` is contiguous, with one value for each
    query. `blocks` replaces the table's block sizes.
    """
    (batch, heads, tokens, dim), (_, block_d) = q.shape, _key(q)
    blocks = blocks or _blocks("FORWARD", q)
    count = _token_blocks(q, num_template, blocks.m)
    start_t, stop_t, start_s, stop_s = spans
    launch(
        attention_forward_kernel,
        (batch * heads * count,),
        {
            **_with_strides({"q_ptr": q, "k_ptr": k, "v_ptr": v, "out_ptr": out, "lse_ptr": lse}),
            "heads": heads,
            "tokens": tokens,
            "num_template": num_template,
            "spans": spans,
            "blocks": count,
            "abs_scale": abs(scale),
            "abs_scale_log2": abs(scale) * LOG2E,
        },
        {
            "NEGATED": scale < 0,
            "HEAD_DIM": dim,
            "BLOCK_D": block_d,
            "BLOCK_M": blocks.m,
            "BLOCK_N": blocks.n,
            "EVEN_QUERIES": dim == block_d and num_template % blocks.m == 0 and tokens % blocks.m == 0,
            "EVEN_KEYS": dim == block_d and (stop_t - start_t) % blocks.n == 0 and (stop_s - start_s) % blocks.n == 0,
            "PRECISION": dot_precision(q.dtype),
            "DEPENDENT": blocks.tuning.dependent,
        },
        blocks.tuning,
    )


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
    """Computes the gradients of attention into `grad_q`, `grad_k` and `grad_v`, whose last dimension is contiguous."""
    grad_out, q, k, v, out = (last_contiguous(t) for t in (grad_out, q, k, v, out))
    (batch, heads, tokens, dim), key = q.shape, _key(q)
    inputs = {"grad_out_ptr": grad_out, "q_ptr": q, "k_ptr": k, "v_ptr": v, "out_ptr": out, "lse_ptr": lse}
    scalars = _shape(q, num_template, pattern) | {"scale": scale, "scale_log2": scale * LOG2E}
    constants = {
        "HEAD_DIM": dim,
        "BLOCK_D": key[1],
        "PRECISION": dot_precision(q.dtype),
    }

    def run(kernel: Any, grid: int, tensors: dict[str, Tensor], blocks: Blocks, more: dict, rows: dict) -> None:
        compiled_in = constants | rows | {"BLOCK_N": blocks.n}
        launch(kernel, (grid,), _with_strides(tensors) | scalars | more, compiled_in, blocks.tuning)

    outputs = {"grad_q_ptr": grad_q, "grad_k_ptr": grad_k, "grad_v_ptr": grad_v}
    groups = num_template, tokens - num_template
    if key in BACKWARD and max(groups) <= BACKWARD[key].m:
        groups_in = {
            "BLOCK_TEMPLATE": max(16, next_power_of_2(groups[0])),
            "BLOCK_SEARCH": max(16, next_power_of_2(groups[1])),
        }
        run(attention_backward_kernel, batch * heads, inputs | outputs, _blocks("BACKWARD", q), {}, groups_in)
        return
    constants["ROW_SUMS"] = q.dtype == torch.float32
    delta = lse.new_empty(lse.shape)
    inverse_sum = lse.new_empty(lse.shape) if constants["ROW_SUMS"] else delta  # a placeholder, which is not read
    inputs |= {"delta_ptr": delta, "inverse_sum_ptr": inverse_sum}

    blocks = _blocks("BACKWARD_QUERIES", q)
    count, rows = _token_blocks(q, num_template, blocks.m), {"BLOCK_M": blocks.m}
    tensors = inputs | {"grad_q_ptr": outputs.pop("grad_q_ptr")}
    run(attention_backward_queries_kernel, batch * heads * count, tensors, blocks, {"blocks": count}, rows)

    blocks = _blocks("BACKWARD_KEYS", q)
    count, rows = _token_blocks(q, num_template, blocks.n), {"BLOCK_M": blocks.m}
    tensors = {name: tensor for name, tensor in (inputs | outputs).items() if name != "out_ptr"}
    run(attention_backward_keys_kernel, batch * heads * count, tensors, blocks, {"blocks": count}, rows)
