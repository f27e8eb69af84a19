"""What runs in plain PyTorch: calls under torch.func's transforms, and forward-mode differentiation."""

from __future__ import annotations

from torch import Tensor

from ..backends import AUTO, requested
from ..torch_private import transformed

REFERENCE = "reference"


def in_plain_pytorch(op: str, backend: str, *tensors: Tensor) -> bool:
    """Whether a call has to be computed by the reference, which every transform of PyTorch can differentiate and batch.

    Kernels are opaque to `torch.func` (grad, vjp, jvp, jacrev, vmap ...) and to forward-mode derivatives, whose
    tangents they would lose.

    Raises:
        RuntimeError: it has to be, and another backend was named.
    """
    if not transformed(tensors):
        return False
    name = requested(backend)
    if name not in (AUTO, REFERENCE):
        raise RuntimeError(
            f"{op}: under torch.func's transforms and forward-mode differentiation only the reference can run, got "
            f"backend {name!r}; expected 'auto' or 'reference'"
        )
    return True
