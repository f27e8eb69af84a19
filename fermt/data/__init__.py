"""From images to what the network sees."""

from .crops import Crop, Square, crop_target, meeting_square, normalize, target_square

__all__ = ["Crop", "Square", "crop_target", "meeting_square", "normalize", "target_square"]
