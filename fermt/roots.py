"""Folders of data sets from the environment variable FERMT_ROOTS."""

from __future__ import annotations

import os

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
