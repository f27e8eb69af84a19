"""Tracking: targets through a sequence of images, and the images' way in and out."""

from .multi_tracker import MultiTracker
from .target import Options, Track
from .tracker import Tracker

__all__ = ["MultiTracker", "Options", "Track", "Tracker"]
