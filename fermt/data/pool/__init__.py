"""Training pairs from a folder of free images: photographs, cut-outs, images with boxes, video frames with tracks."""

from .pairs import SHARES, PoolPairs

__all__ = ["SHARES", "PoolPairs"]
