"""The model: backbone, heads, and the whole."""

from .fermt import FERMT, build_model

__all__ = ["FERMT", "build_model"]
