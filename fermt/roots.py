"""Folders of data sets from the environment variable FERMT_ROOTS."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "FERMT_ROOTS"
FORM = (
    f"NAME=FOLDER, several with {os.pathsep!r} between them, such as got10k=/data/GOT-10k{os.pathsep}lasot=/data/LaSOT"
)


def roots() -> dict[str, str]:
    """Reads the folders by data set; ValueError if the variable does not have the expected form."""
    found = {}
    for part in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        name, _, folder = part.partition("=")
        if not name or not folder:
            raise ValueError(f"{VARIABLE} must be {FORM}; got {part!r}")
        found[name] = folder
    return found


def root_of(name: str, folder: Path | None) -> Path:
    """Returns `folder`, or the folder in the environment if it is None; ValueError if there is neither."""
    if folder is not None:
        return folder
    known = roots()
    if name not in known:
        raise ValueError(f"{name} needs its folder: --dataset {name}=FOLDER, or {VARIABLE}={name}=FOLDER")
    return Path(known[name])
