"""Calls that run in plain PyTorch: under torch.func's transforms, forward-mode differentiation, and export to ONNX."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import AUTO, requested
from ..torch_private import transformed

REFERENCE = "reference"


def in_plain_pytorch(op: str, backend: str, *tensors: Tensor) -> bool:
    """Whether a call has to be computed by the reference, which every transform of PyTorch can differentiate and batch.

    Kernels are opaque to `torch.func` (grad, vjp, jvp, jacrev, vmap ...) and to forward-mode derivatives, whose
    tangents they would lose. ONNX has no operators for them.

    Raises:
        RuntimeError: it has to be, and another backend was named.
    """
    if not (transformed(tensors) or _exports_onnx()):
        return False
    name = requested(backend)
    if name not in (AUTO, REFERENCE):
        raise RuntimeError(
            f"{op}: under torch.func's transforms, forward-mode differentiation and torch.onnx.export only the "
            f"reference can run, got backend {name!r}; expected 'auto' or 'reference'"
        )
    return True


def _exports_onnx() -> bool:
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return traced and torch.onnx.is_in_onnx_export()
