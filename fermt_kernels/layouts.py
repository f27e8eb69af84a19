"""Memory layouts that the compiled backends can read."""

from __future__ import annotations

from torch import Tensor


def last_contiguous(tensor: Tensor) -> Tensor:
    """Returns the tensor, or a contiguous copy if its last dimension is not contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
