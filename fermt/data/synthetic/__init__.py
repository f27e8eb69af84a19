"""Synthetic tracking data: objects, drawn or from images, that move over backgrounds, drawn or from images."""

from .config import PRESETS, SyntheticConfig, synthetic_config
from .pairs import SyntheticPairs
from .video import SyntheticSequences, synthetic_video

__all__ = [
    "PRESETS",
    "SyntheticConfig",
    "SyntheticPairs",
    "SyntheticSequences",
    "synthetic_config",
    "synthetic_video",
]
