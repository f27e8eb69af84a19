"""Fused kernels for FERMT: attention between template and search tokens, and the Dual Attention Unit.

import fermt_kernels as fk
out = fk.mixed_attention(qkv, num_heads=12, num_template=64)   # (B, N, 3 C) -> (B, N, C)
print(fk.backends())                                           # what can run here, and why not the rest
"""

from . import flops, frame, modules, patterns, reference
from .backends import backends
from .ops import (
    DAUWeights,
    attention,
    attention_packed,
    cross_attention,
    dual_attention_unit,
    linear,
    mixed_attention,
)
from .patterns import PATTERNS
from .swap import swap

__version__ = "0.2.0"

__all__ = [
    "PATTERNS",
    "DAUWeights",
    "__version__",
    "attention",
    "attention_packed",
    "backends",
    "cross_attention",
    "dual_attention_unit",
    "flops",
    "frame",
    "linear",
    "mixed_attention",
    "modules",
    "patterns",
    "reference",
    "swap",
]
