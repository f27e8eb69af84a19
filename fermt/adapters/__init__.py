"""The tracker behind other people's interfaces. `got10k` and `vot`, which want their toolkits, are imported by name."""

from . import opencv, pytracking

__all__ = ["opencv", "pytracking"]
