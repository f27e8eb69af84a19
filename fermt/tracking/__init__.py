"""Tracking: one target through a sequence of images, and the images' way in and out."""

from .tracker import Track, Tracker

__all__ = ["Track", "Tracker"]
