"""Helpers for adapters: makes a tracker from a model or a file, and imports toolkits."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoints import load_any
from ..machine import pick_device
from ..model import FERMT
from ..tracking import Tracker
from ..tracking.network import Packed

Source = FERMT | Packed | str | os.PathLike[str]


def tracker_for(model: Source, *, bgr: bool = False, device: str | None = None, **options: Any) -> Tracker:
    """Makes a `fermt.Tracker`.

    Args:
        model: a FERMT, a packed model, or a path to one: weights by fermt.save, or a packed model (.fermt).
        bgr: whether the images of the interface are BGR.
        device: device for weights from a file: "auto", "cpu" (as None), "cuda", "cuda:1" ...
        **options: `dtype` and the other options of `fermt.Tracker`: lost_below, patience, ...

    Raises:
        TypeError: `model` is none of these, or an option is unknown.
        FileNotFoundError, ValueError: the file is missing or cannot be loaded, or an option is out of range.
    """
    if isinstance(model, str | os.PathLike):
        chosen = pick_device(device or "cpu", Path(model))
        return Tracker(load_any(model, device=chosen), bgr=bgr, **options)
    if not isinstance(model, nn.Module | Packed):
        raise TypeError(
            f"expected a FERMT, a packed model, or a path to weights (.safetensors, .fermt); got {type(model).__name__}"
        )
    if device is not None:
        raise ValueError(f"device is for weights from a file, got {device!r} with a model; move the model itself")
    return Tracker(model, bgr=bgr, **options)


def toolkit(module: str, package: str) -> Any:
    """Imports a module of an optional package; ImportError names the package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this adapter needs {module}, which cannot be imported: {error}; pip install {package}"
        ) from error
