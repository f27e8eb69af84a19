"""The structs of csrc/abi/fermt.h, field by field, and their packing.

The ctypes structures are the declaration; `Layout` packs their fields with `struct`, because a call has up to fifty
values and building a ctypes structure takes ten times as long.
"""

from __future__ import annotations

import ctypes
import struct
from ctypes import Structure, c_double, c_int64, c_void_p
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from ..spec.dual_attention_unit import DAUWeights

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # fermt_dtype
FRAME_DTYPES = (torch.float32, torch.bfloat16, torch.int8)  # of a packed model's matrices
UNIT_WEIGHTS = len(DAUWeights._fields)  # FERMT_UNIT_WEIGHTS

_HEAD: list[tuple[str, Any]] = [("struct_size", c_int64), ("parallel_for", c_void_p)]


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class TensorView(Structure):
    """`fermt_tensor`: a tensor of four dimensions, the last contiguous."""

    _fields_ = [("data", c_void_p), ("strides", c_int64 * 3)]


class AttentionShape(Structure):
    """`fermt_attention_shape`."""

    _fields_ = [
        *_fields(c_int64, "batch heads tokens head_dim num_template"),
        *_fields(c_int64 * 2, "template_keys search_keys"),
        ("scale", c_double),
        ("dtype", c_int64),
    ]


class UnitShape(Structure):
    """`fermt_unit_shape`."""

    _fields_ = _fields(c_int64, "batch channels height width kernel dilated_kernel hidden dtype")


class LinearShape(Structure):
    """`fermt_linear_shape`."""

    _fields_ = _fields(c_int64, "rows inputs outputs x_stride gelu dtype x_dtype weight_dtype out_dtype")


class AttentionForwardArgs(Structure):
    """`fermt_attention_forward_args`."""

    _fields_ = [*_HEAD, ("shape", AttentionShape), *_fields(TensorView, "q k v out"), ("lse", c_void_p)]


class AttentionBackwardArgs(Structure):
    """`fermt_attention_backward_args`."""

    _fields_ = [
        *_HEAD,
        ("shape", AttentionShape),
        *_fields(TensorView, "grad_out q k v out"),
        ("lse", c_void_p),
        *_fields(TensorView, "grad_q grad_k grad_v"),
    ]


class DualAttentionUnitForwardArgs(Structure):
    """`fermt_dual_attention_unit_forward_args`."""

    _fields_ = [
        *_HEAD,
        ("shape", UnitShape),
        ("x", TensorView),
        ("weights", c_void_p * UNIT_WEIGHTS),
        ("out", TensorView),
    ]


class DualAttentionUnitBackwardArgs(Structure):
    """`fermt_dual_attention_unit_backward_args`."""

    _fields_ = [
        *_HEAD,
        ("shape", UnitShape),
        *_fields(TensorView, "grad_out x"),
        ("weights", c_void_p * UNIT_WEIGHTS),
        ("grad_x", TensorView),
        ("grad_weights", c_void_p * UNIT_WEIGHTS),
    ]


class LinearForwardArgs(Structure):
    """`fermt_linear_forward_args`."""

    _fields_ = [*_HEAD, ("shape", LinearShape), *_fields(c_void_p, "x weight bias out")]


class LinearBackwardArgs(Structure):
    """`fermt_linear_backward_args`."""

    _fields_ = [
        *_HEAD,
        ("shape", LinearShape),
        ("grad_out_stride", c_int64),
        *_fields(c_void_p, "grad_out x weight grad_x grad_weight grad_bias activated"),
    ]


class EncodeTemplateArgs(Structure):
    """`fermt_encode_template_args`."""

    _fields_ = [
        *_HEAD,
        ("model", c_void_p),
        *_fields(c_int64, "model_bytes batch"),
        *_fields(c_void_p, "crops caches"),
        ("cache_bytes", c_int64),
        ("workspace", c_void_p),
        ("workspace_bytes", c_int64),
    ]


class TrackFrameArgs(Structure):
    """`fermt_track_frame_args`."""

    _fields_ = [*EncodeTemplateArgs._fields_, *_fields(c_void_p, "maps tokens")]


class FrameInfoArgs(Structure):
    """`fermt_frame_info_args`; the library fills in all fields from `cache_bytes` on."""

    _fields_ = [
        ("struct_size", c_int64),
        ("model", c_void_p),
        *_fields(c_int64, "model_bytes verify batch"),
        *_fields(c_int64, "cache_bytes workspace_bytes map_channels grid template_size search_size head dtype dim"),
        *_fields(c_double, "template_factor search_factor"),
    ]


class FmaPeakArgs(Structure):
    """`fermt_fma_peak_args`; the library fills in `operations`."""

    _fields_ = [*_HEAD, *_fields(c_int64, "dtype threads iterations operations")]


# The struct that each function of the library takes.
ARGUMENTS: dict[str, type[Structure]] = {
    "fermt_attention_forward": AttentionForwardArgs,
    "fermt_attention_backward": AttentionBackwardArgs,
    "fermt_dual_attention_unit_forward": DualAttentionUnitForwardArgs,
    "fermt_dual_attention_unit_backward": DualAttentionUnitBackwardArgs,
    "fermt_linear_forward": LinearForwardArgs,
    "fermt_linear_backward": LinearBackwardArgs,
    "fermt_encode_template": EncodeTemplateArgs,
    "fermt_track_frame": TrackFrameArgs,
    "fermt_frame_info": FrameInfoArgs,
    "fermt_fma_peak": FmaPeakArgs,
}


class Layout:
    """Packs and unpacks one struct by field names.

    The fields of a nested `shape` are named as if they were the struct's own. A value is a number, or a tuple for an
    array or a tensor (`tensor_fields`).
    """

    def __init__(self, structure: type[Structure]) -> None:
        self._names: list[str] = []
        formats: list[str] = []
        for name, kind in _members(structure):
            flattened = _members(kind) if name == "shape" else [(name, kind)]
            self._names += [member for member, _ in flattened]
            formats += [_format(member_kind) for _, member_kind in flattened]
        self._count = len(self._names) - 1
        self._select = itemgetter(*self._names[1:])
        self._widths = [len(format) for format in formats]
        self._arrays = [index for index, width in reversed(list(enumerate(self._widths))) if width > 1]
        self._struct = struct.Struct("@" + "".join(formats))
        self.size = ctypes.sizeof(structure)
        assert self._struct.size == self.size, structure  # no padding: every member has 8 bytes

    def pack(self, fields: dict[str, Any]) -> bytes:
        """The struct's bytes; `fields` has all fields but `struct_size`.

        Raises:
            TypeError: a field is missing or unknown.
        """
        try:
            values = [self.size, *self._select(fields)]
        except KeyError as error:
            raise TypeError(f"missing {error}: expected the fields {self._names[1:]}, got {list(fields)}") from None
        if len(fields) != self._count:
            raise TypeError(f"expected the fields {self._names[1:]}, got {list(fields)}")
        for index in self._arrays:  # from the last to the first, so that the others' indices stay
            values[index : index + 1] = values[index]
        return self._struct.pack(*values)

    def unpack(self, data: Any) -> dict[str, Any]:
        """All fields of a struct; arrays as tuples."""
        values, start, fields = self._struct.unpack(data), 0, {}
        for name, width in zip(self._names, self._widths, strict=True):
            fields[name] = values[start] if width == 1 else values[start : start + width]
            start += width
        return fields

    def zeros(self) -> dict[str, Any]:
        """Zeros for all fields but `struct_size`."""
        pairs = zip(self._names[1:], self._widths[1:], strict=True)
        return {name: 0 if width == 1 else (0,) * width for name, width in pairs}


def _members(structure: type[Structure]) -> list[tuple[str, Any]]:
    """Names and types of a struct's members."""
    return [(field[0], field[1]) for field in structure._fields_]


def _format(kind: Any) -> str:
    """A ctypes type as codes of `struct`, one for each number or pointer."""
    if issubclass(kind, ctypes.Array):
        return _format(kind._type_) * kind._length_
    if issubclass(kind, Structure):
        return "".join(_format(member) for _, member in _members(kind))
    return {c_int64: "q", c_double: "d", c_void_p: "P"}[kind]


LAYOUTS = {name: Layout(structure) for name, structure in ARGUMENTS.items()}


def tensor_fields(tensor: Tensor) -> tuple[int, int, int, int]:
    """The members of a `fermt_tensor`: address and first three strides; the last dimension must be contiguous."""
    first, second, third, _ = tensor.stride()
    return tensor.data_ptr(), first, second, third
