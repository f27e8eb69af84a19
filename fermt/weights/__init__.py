"""Trained weights that come with the package, by name."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT = "free-images"
SHIPPED = {DEFAULT: "trained on free images only (fermt/weights/README.md says how, and how well they track)"}


def located(weights: str | os.PathLike[str]) -> Path:
    """The file of weights: that of a name in `SHIPPED`, else the given path.

    Raises:
        FileNotFoundError: there is no such file, and no such name.
    """
    if str(weights) in SHIPPED:
        return Path(__file__).with_name(f"{weights}.safetensors")
    if not Path(weights).is_file():
        raise FileNotFoundError(f"no weights at {os.fspath(weights)!r}, nor is this one of {', '.join(SHIPPED)}")
    return Path(weights)
