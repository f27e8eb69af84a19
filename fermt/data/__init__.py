"""From images to what the network sees."""

from .crops import Crop, Square, crop_target, normalize, target_square

__all__ = ["Crop", "Square", "crop_target", "normalize", "target_square"]
