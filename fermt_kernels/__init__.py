"""Fused kernels for FERMT: attention between template and search tokens, and the Dual Attention Unit.

import fermt_kernels as fk
out = fk.mixed_attention(qkv, num_heads=12, num_template=64)   # (B, N, 3 C) -> (B, N, C)
print(fk.backends())                                           # usable backends; for the others, the reason
"""

from . import flops, frame, modules, patterns, reference, spec
from .backends import backends
from .ops import (
    attention,
    attention_packed,
    cross_attention,
    dual_attention_unit,
    linear,
    mixed_attention,
)
from .spec.dual_attention_unit import DAUWeights
from .spec.patterns import PATTERNS
from .swap import swap, unswap
from .version import VERSION

__version__ = VERSION

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
    "spec",
    "swap",
    "unswap",
]
