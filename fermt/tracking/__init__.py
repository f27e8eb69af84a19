"""Tracking of one or many targets, and input and output of images, videos and boxes."""

from .multi_tracker import MultiTracker
from .target import Options, Track
from .tracker import Tracker

__all__ = ["MultiTracker", "Options", "Track", "Tracker"]
