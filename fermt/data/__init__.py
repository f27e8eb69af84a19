"""Crops for the network, and sources of training pairs."""

from .crops import Crop, Square, crop_square, crop_target, meeting_square, normalize, normalize_batch, target_square
from .sequences import Annotation, SequenceSet
from .synthetic import (
    SyntheticConfig,
    SyntheticPairs,
    SyntheticSequences,
    synthetic_config,
    synthetic_video,
)

__all__ = [
    "Annotation",
    "Crop",
    "SequenceSet",
    "Square",
    "SyntheticConfig",
    "SyntheticPairs",
    "SyntheticSequences",
    "crop_square",
    "crop_target",
    "meeting_square",
    "normalize",
    "normalize_batch",
    "synthetic_config",
    "synthetic_video",
    "target_square",
]
