"""The GPU backend: Triton kernels. Importing it imports no triton, asks for no GPU and compiles nothing.

With TRITON_INTERPRET=1 in the environment the kernels run in Triton's interpreter, on CPU tensors: slow, for tests.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..spec.dual_attention_unit import DAUWeights
from .frame_weights import FrameSizes, FrameWeights
from .launch import INTERPRETED

if TYPE_CHECKING:
    from .frame import Frame

DEVICES = ("cuda", "cpu") if INTERPRETED else ("cuda",)
# The interpreter computes bfloat16 wrongly.
DTYPES = (torch.float32, torch.float16) if INTERPRETED else (torch.float32, torch.bfloat16, torch.float16)
SUPPORTS = {
    "attention_forward": DTYPES,
    "attention_backward": DTYPES,
    "dual_attention_unit_forward": DTYPES,
    "dual_attention_unit_backward": DTYPES,
    "track_frame": DTYPES,
    "crop_forward": (torch.uint8,),
}
OLDEST = (8, 0)  # compute capability; on older GPUs the kernels spill registers to memory
LARGEST = {
    "attention_forward": ("head dims", 128),
    "attention_backward": ("head dims", 128),
    "dual_attention_unit_forward": ("channels", 16),
    "dual_attention_unit_backward": ("channels", 16),
}


def unavailable_reason() -> str | None:
    """The reason why the backend cannot run on this machine, or None if it can."""
    if not _is_installed():
        return "triton is not installed; pip install 'triton>=3.5'"
    if not INTERPRETED and not torch.cuda.is_available():
        return "no CUDA GPU is visible (torch.cuda.is_available() is False)"
    if not INTERPRETED and (capability := torch.cuda.get_device_capability()) < OLDEST:
        name = torch.cuda.get_device_name()
        return (
            f"{name} has compute capability {capability[0]}.{capability[1]}; {OLDEST[0]}.{OLDEST[1]} or newer is needed"
        )
    return _import_failure()


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


@cache
def _import_failure() -> str | None:
    """The reason why triton cannot be imported, or None."""
    try:
        import_module("triton")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"triton cannot be imported ({type(error).__name__}: {error}); reinstall it: pip install 'triton>=3.5'"
    return None


def slower_than_pytorch() -> tuple[str, ...]:
    """Ops that PyTorch's own kernels run faster on this machine."""
    return ()


def describe() -> str:
    """The GPU or interpreter that it runs on, and its dtypes."""
    import triton

    where = "the interpreter" if INTERPRETED else torch.cuda.get_device_name()
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    return f"triton {triton.__version__} on {where}: {dtypes}"


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Computes attention of q, k, v (B, H, N, D) into `out` (last dimension contiguous) and `lse` (B, H, N)."""
    from . import attention

    attention.attention_forward(q, k, v, out, lse, num_template, pattern, scale)


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
    from . import attention

    attention.attention_backward(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, num_template, pattern, scale)


def dual_attention_unit_forward(x: Tensor, weights: DAUWeights, out: Tensor) -> None:
    """Computes the unit on x (B, C, H, W) into `out`."""
    from . import dual_attention_unit

    dual_attention_unit.dual_attention_unit_forward(x, weights, out)


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: DAUWeights, grad_x: Tensor, grads: DAUWeights
) -> None:
    """Computes the unit's gradients into `grad_x` and `grads`."""
    from . import dual_attention_unit

    dual_attention_unit.dual_attention_unit_backward(grad_out, x, weights, grad_x, grads)


def make_frame(weights: FrameWeights, sizes: FrameSizes, batch: int) -> Frame:
    """Allocates a whole frame for `batch` targets on the weights' device."""
    from . import frame

    return frame.Frame(weights, sizes, batch)


def crop_forward(image: Tensor, squares: Tensor, out: Tensor) -> None:
    """Computes crops of image (H, W, 3) at squares (B, 3) into `out` (B, S, S, 3); squares are not read back."""
    from . import crop

    crop.crop_forward(image, squares, out)
