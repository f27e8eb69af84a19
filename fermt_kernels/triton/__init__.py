"""The GPU room: Triton kernels. Importing it imports no triton, asks for no GPU and compiles nothing.

With TRITON_INTERPRET=1 in the environment the kernels run in Triton's interpreter, on CPU tensors: slow, for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
LARGEST = {
    "attention_forward": ("head dims", 128),
    "attention_backward": ("head dims", 128),
    "dual_attention_unit_forward": ("channels", 16),
    "dual_attention_unit_backward": ("channels", 16),
}


def why_not() -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed; pip install 'triton>=3.5'"
    if not INTERPRETED and not torch.cuda.is_available():
        return "no CUDA GPU is to be seen from here (torch.cuda.is_available() is False)"
    return None


def slower_than_pytorch() -> tuple[str, ...]:
    return ()


def describe() -> str:
    import triton

    where = "the interpreter" if INTERPRETED else torch.cuda.get_device_name()
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    return f"triton {triton.__version__} on {where}: {dtypes}"


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Attention of (B, H, N, D) into `out` (last dimension contiguous) and `lse` (B, H, N), contiguous."""
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
    """Gradients of attention into `grad_q`, `grad_k`, `grad_v` (last dimension contiguous)."""
    from . import attention

    attention.attention_backward(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, num_template, pattern, scale)


def dual_attention_unit_forward(x: Tensor, weights: Sequence[Tensor], out: Tensor) -> None:
    """The unit on x (B, C, H, W) into `out`; weights in the order of `DAUWeights`."""
    from . import dual_attention_unit

    dual_attention_unit.dual_attention_unit_forward(x, weights, out)


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: Sequence[Tensor], grad_x: Tensor, grads: Sequence[Tensor]
) -> None:
    """Gradients of the unit into `grad_x` and `grads` (the weights' order)."""
    from . import dual_attention_unit

    dual_attention_unit.dual_attention_unit_backward(grad_out, x, weights, grad_x, grads)


def make_frame(weights: FrameWeights, sizes: FrameSizes, batch: int) -> Frame:
    """Memory and launches of a whole frame for `batch` targets, on the device of the weights."""
    from . import frame

    return frame.Frame(weights, sizes, batch)


def crop_forward(image: Tensor, squares: Tensor, out: Tensor) -> None:
    """Crops of image (H, W, 3) at squares (B, 3), which are not read back, into `out` (B, S, S, 3), contiguous."""
    from . import crop

    crop.crop_forward(image, squares, out)
