"""Calls that run in plain PyTorch: under torch.func's transforms, forward-mode differentiation, and export to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import AUTO, requested
from ..torch_private import transformed

REFERENCE = "reference"
WRAPPER_METHOD = "__tensor_flatten__"  # what PyTorch asks of a class whose tensors wrap others


def in_plain_pytorch(op: str, backend: str, *tensors: Tensor) -> bool:
    """Whether a call has to be computed by the reference, which every transform of PyTorch can differentiate and batch.

    Kernels are opaque to `torch.func` (grad, vjp, jvp, jacrev, vmap ...) and to forward-mode derivatives, whose
    tangents they would lose. ONNX has no operators for them. Tensors that wrap others (quantized by torchao, DTensor,
    nested) have no memory that a kernel could read, and know PyTorch's functions alone.

    Raises:
        RuntimeError: it has to be, and another backend was named.
    """
    if not (
        transformed(tensors) or _exports_onnx() or any(hasattr(type(tensor), WRAPPER_METHOD) for tensor in tensors)
    ):
        return False
    name = requested(backend)
    if name not in (AUTO, REFERENCE):
        raise RuntimeError(
            f"{op}: under torch.func's transforms, forward-mode differentiation and torch.onnx.export, and for tensors "
            f"that wrap others, only the reference can run, got backend {name!r}; expected 'auto' or 'reference'"
        )
    return True


def _exports_onnx() -> bool:
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return traced and torch.onnx.is_in_onnx_export()
