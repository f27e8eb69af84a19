"""The structs of csrc/abi/fermt.h, packed in one go: a call has forty numbers, which ctypes would take one by one."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # fermt_dtype
FRAME_DTYPES = (torch.float32, torch.bfloat16, torch.int8)  # of a packed model's matrices

_HEAD = "qP"  # struct_size, parallel_for
_TENSOR = "P3q"  # fermt_tensor: data, and the strides of all dimensions but the last
_ATTENTION = "5q2q2qdq"  # batch, heads, tokens, head_dim, num_template; template_keys, search_keys; scale, dtype
_UNIT = "8q"  # batch, channels, height, width, kernel, dilated_kernel, hidden, dtype
_UNIT_WEIGHTS = "12P"
_LINEAR = "9q"  # rows, inputs, outputs; x_stride; gelu; dtype, x_dtype, weight_dtype, out_dtype
_FRAME = "Pqq2PqPq"  # model, its bytes; batch; crops, caches, bytes of a cache; workspace, its bytes

LAYOUTS = {
    "fermt_attention_forward": struct.Struct(f"@{_HEAD}{_ATTENTION}{4 * _TENSOR}P"),  # q, k, v, out; lse
    # grad_out, q, k, v, out; lse; grad_q, grad_k, grad_v
    "fermt_attention_backward": struct.Struct(f"@{_HEAD}{_ATTENTION}{5 * _TENSOR}P{3 * _TENSOR}"),
    "fermt_dual_attention_unit_forward": struct.Struct(f"@{_HEAD}{_UNIT}{_TENSOR}{_UNIT_WEIGHTS}{_TENSOR}"),  # x, out
    # grad_out, x; weights; grad_x; grad_weights
    "fermt_dual_attention_unit_backward": struct.Struct(
        f"@{_HEAD}{_UNIT}{2 * _TENSOR}{_UNIT_WEIGHTS}{_TENSOR}{_UNIT_WEIGHTS}"
    ),
    "fermt_linear_forward": struct.Struct(f"@{_HEAD}{_LINEAR}4P"),  # x, weight, bias or 0, out
    # grad_out_stride; grad_out, x, weight; grad_x, grad_weight, grad_bias, activated, each or 0
    "fermt_linear_backward": struct.Struct(f"@{_HEAD}{_LINEAR}q7P"),
    "fermt_encode_template": struct.Struct(f"@{_HEAD}{_FRAME}"),
    "fermt_track_frame": struct.Struct(f"@{_HEAD}{_FRAME}2P"),  # maps; tokens, or null
    # These two answer in their structs, and are called by `Library.query`.
    "fermt_frame_info": struct.Struct("@qP3q9q2d"),  # struct_size; model, its bytes, verify, batch; the answer
    "fermt_fma_peak": struct.Struct(f"@{_HEAD}3qq"),  # dtype, threads, iterations; the answer
}


def tensor_fields(tensor: Tensor) -> tuple[int, int, int, int]:
    """A `fermt_tensor` of a four-dimensional tensor whose last dimension is contiguous."""
    first, second, third, _ = tensor.stride()
    return tensor.data_ptr(), first, second, third
