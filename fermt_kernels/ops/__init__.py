"""The ops: public function, schema, fake, autograd and autocast of each, in that order."""

from .attention import attention, attention_packed, cross_attention, mixed_attention
from .dual_attention_unit import STATE_KEYS, DAUWeights, dual_attention_unit
from .linear import linear

__all__ = [
    "STATE_KEYS",
    "DAUWeights",
    "attention",
    "attention_packed",
    "cross_attention",
    "dual_attention_unit",
    "linear",
    "mixed_attention",
]
