"""The operators. Each file has, in this order: public function, implementation and fake, schema, autograd."""

from .attention import attention, attention_packed, cross_attention, mixed_attention
from .dual_attention_unit import dual_attention_unit
from .linear import linear

__all__ = [
    "attention",
    "attention_packed",
    "cross_attention",
    "dual_attention_unit",
    "linear",
    "mixed_attention",
]
