"""The reference backend: every op in short eager PyTorch, for any device and float dtype (crops: uint8).

`attention`, `dual_attention_unit` and `linear` are differentiable by autograd, any number of times.
"""

import torch

from ..checks import FLOAT_DTYPES
from .attention import attention, attention_backward, attention_forward
from .crop import crop, crop_forward
from .dual_attention_unit import (
    dual_attention_unit,
    dual_attention_unit_backward,
    dual_attention_unit_forward,
)
from .linear import linear, linear_backward, linear_forward

DEVICES = None
SUPPORTS = {
    "attention_forward": FLOAT_DTYPES,
    "attention_backward": FLOAT_DTYPES,
    "dual_attention_unit_forward": FLOAT_DTYPES,
    "dual_attention_unit_backward": FLOAT_DTYPES,
    "linear_forward": FLOAT_DTYPES,
    "linear_backward": FLOAT_DTYPES,
    "crop_forward": (torch.uint8,),
}
LARGEST: dict[str, tuple[str, int]] = {}  # any size


def unavailable_reason() -> str | None:
    """The reason why the backend cannot run on this machine: None, for it always can."""
    return None


def slower_than_pytorch() -> tuple[str, ...]:
    """Ops that PyTorch's own kernels run faster: none, for it consists of them."""
    return ()


def describe() -> str:
    """The devices and dtypes that it runs on."""
    return "eager PyTorch: any device, float32, bfloat16, float16, float64"


__all__ = [
    "DEVICES",
    "SUPPORTS",
    "attention",
    "attention_backward",
    "attention_forward",
    "crop",
    "crop_forward",
    "describe",
    "dual_attention_unit",
    "dual_attention_unit_backward",
    "dual_attention_unit_forward",
    "linear",
    "linear_backward",
    "linear_forward",
    "slower_than_pytorch",
    "unavailable_reason",
]
