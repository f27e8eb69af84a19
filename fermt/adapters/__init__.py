"""Adapters of the tracker to other interfaces. `got10k` and `vot`, which need their toolkits, are imported by name."""

from . import opencv, pytracking

__all__ = ["opencv", "pytracking"]
