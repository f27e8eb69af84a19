"""Layouts of tensors that compiled rooms read by strides."""

from __future__ import annotations

from torch import Tensor


def last_contiguous(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy where its last dimension is not contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
