"""From images to what the network sees."""

from .crops import Crop, crop_target, normalize

__all__ = ["Crop", "crop_target", "normalize"]
