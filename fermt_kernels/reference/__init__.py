"""The specification of every op in short eager PyTorch: any device, any float dtype, differentiable as it stands."""

from ..checks import FLOAT_DTYPES
from .attention import attention, attention_backward, attention_forward
from .dual_attention_unit import (
    dual_attention_unit,
    dual_attention_unit_backward,
    dual_attention_unit_forward,
)

DEVICES = None
SUPPORTS = {
    "attention_forward": FLOAT_DTYPES,
    "attention_backward": FLOAT_DTYPES,
    "dual_attention_unit_forward": FLOAT_DTYPES,
    "dual_attention_unit_backward": FLOAT_DTYPES,
}
LARGEST: dict[str, tuple[str, int]] = {}  # any size


def why_not() -> str | None:
    return None


def describe() -> str:
    return "eager PyTorch: any device, float32, bfloat16, float16, float64"


__all__ = [
    "DEVICES",
    "SUPPORTS",
    "attention",
    "attention_backward",
    "attention_forward",
    "describe",
    "dual_attention_unit",
    "dual_attention_unit_backward",
    "dual_attention_unit_forward",
    "why_not",
]
