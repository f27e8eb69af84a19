"""A tracking data set that needs no download: drawn objects, or yours, move over drawn backgrounds, or yours."""

from .batches import SyntheticBatches
from .config import PRESETS, SyntheticConfig, synthetic_config
from .pairs import SyntheticPairs
from .video import SyntheticSequences, synthetic_video

__all__ = [
    "PRESETS",
    "SyntheticBatches",
    "SyntheticConfig",
    "SyntheticPairs",
    "SyntheticSequences",
    "synthetic_config",
    "synthetic_video",
]
