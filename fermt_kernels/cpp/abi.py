"""The structs of csrc/abi.h, and tensors in their terms."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # fermt_dtype
UNIT_WEIGHTS = 12


class TensorArg(ctypes.Structure):
    """`fermt_tensor`: four dimensions by their first three strides; the last is contiguous."""

    _fields_ = (("data", c_void_p), ("strides", c_int64 * 3))


class AttentionShape(ctypes.Structure):
    """`fermt_attention_shape`."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "heads", "tokens", "head_dim", "num_template")),
        *((name, c_int64 * 2) for name in ("template_keys", "search_keys")),
        ("scale", c_double),
        ("dtype", c_int64),
    )


class AttentionForwardArgs(ctypes.Structure):
    """`fermt_attention_forward_args`."""

    _fields_ = (
        ("struct_size", c_int64),
        ("parallel_for", c_void_p),
        ("shape", AttentionShape),
        *((name, TensorArg) for name in ("q", "k", "v", "out")),
        ("lse", c_void_p),
    )


class AttentionBackwardArgs(ctypes.Structure):
    """`fermt_attention_backward_args`."""

    _fields_ = (
        ("struct_size", c_int64),
        ("parallel_for", c_void_p),
        ("shape", AttentionShape),
        *((name, TensorArg) for name in ("grad_out", "q", "k", "v", "out")),
        ("lse", c_void_p),
        *((name, TensorArg) for name in ("grad_q", "grad_k", "grad_v")),
    )


class UnitShape(ctypes.Structure):
    """`fermt_unit_shape`."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "channels", "height", "width", "kernel", "dilated_kernel", "hidden")),
        ("dtype", c_int64),
    )


class UnitForwardArgs(ctypes.Structure):
    """`fermt_dual_attention_unit_forward_args`."""

    _fields_ = (
        ("struct_size", c_int64),
        ("parallel_for", c_void_p),
        ("shape", UnitShape),
        ("x", TensorArg),
        ("weights", c_void_p * UNIT_WEIGHTS),
        ("out", TensorArg),
    )


class UnitBackwardArgs(ctypes.Structure):
    """`fermt_dual_attention_unit_backward_args`."""

    _fields_ = (
        ("struct_size", c_int64),
        ("parallel_for", c_void_p),
        ("shape", UnitShape),
        ("grad_out", TensorArg),
        ("x", TensorArg),
        ("weights", c_void_p * UNIT_WEIGHTS),
        ("grad_x", TensorArg),
        ("grad_weights", c_void_p * UNIT_WEIGHTS),
    )


def last_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where its last dimension is not contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def tensor_arg(tensor: Tensor) -> tuple[int, tuple[int, ...]]:
    """A `TensorArg` of a four-dimensional tensor whose last dimension is contiguous."""
    return tensor.data_ptr(), tensor.stride()[:3]
