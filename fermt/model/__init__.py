"""The model: backbone, heads, and the whole network."""

from .fermt import FERMT, build_model

__all__ = ["FERMT", "build_model"]
