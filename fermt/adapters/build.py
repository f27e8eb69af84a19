"""What adapters start from: the tracker of a model, or of a file that holds one, and the toolkit that they are for."""

from __future__ import annotations

import importlib
import os
from typing import Any

from torch import nn

from ..checkpoints import load_any
from ..model import FERMT
from ..tracking import Tracker
from ..tracking.network import Packed

Source = FERMT | Packed | str | os.PathLike[str]


def tracker_for(model: Source, *, bgr: bool = False, device: str | None = None, **options: Any) -> Tracker:
    """A `fermt.Tracker`.

    Args:
        model: a FERMT, a packed model, or a path to one: weights by fermt.save, or a packed model (.fermt).
        bgr: whether the interface's images are BGR.
        device: where weights from a file run: "cpu", which None means, "cuda", "cuda:1" ...
        **options: `dtype`, and the others of `fermt.Tracker`: lost_below, patience, ...

    Raises:
        TypeError: `model` is none of these, or an option is unknown.
        FileNotFoundError, ValueError: there is no such file, it cannot be loaded, or an option is out of range.
    """
    if isinstance(model, str | os.PathLike):
        return Tracker(load_any(model, device=device or "cpu"), bgr=bgr, **options)
    if not isinstance(model, nn.Module | Packed):
        raise TypeError(
            f"expected a FERMT, a packed model, or a path to weights (.safetensors, .fermt); got {type(model).__name__}"
        )
    if device is not None:
        raise ValueError(f"device is for weights from a file, got {device!r} with a model; move the model itself")
    return Tracker(model, bgr=bgr, **options)


def toolkit(module: str, package: str) -> Any:
    """A module that this package does not depend on. ImportError, with the package that has it, if it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this adapter needs {module}, which cannot be imported: {error}; pip install {package}"
        ) from error
