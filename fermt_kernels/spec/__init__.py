"""The facts of the FERMT model that several parts of the package rely on, each stated once.

patterns               which keys each group of queries sees
schedule               which layers need the template tokens, and which of those can be cached
heads                  branches, outputs and activations of the prediction heads
normalization          constants of image and feature normalization
dual_attention_unit    the unit's weights and their state-dict keys
state_dict             keys of the authors' state dict that no forward pass reads
"""

from . import dual_attention_unit, heads, normalization, patterns, schedule, state_dict

__all__ = ["dual_attention_unit", "heads", "normalization", "patterns", "schedule", "state_dict"]
