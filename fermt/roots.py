"""Folders of data sets from the environment variable FERMT_ROOTS."""

from __future__ import annotations

import os
from collections.abc import Sequence

ROOTS_VARIABLE = "FERMT_ROOTS"
ROOTS_FORMAT = (
    f"NAME=FOLDER, several with {os.pathsep!r} between them, such as got10k=/data/GOT-10k{os.pathsep}lasot=/data/LaSOT"
)


def no_folder(names: Sequence[str]) -> ValueError:
    """The error for data sets whose folder is given nowhere; it shows how to give that of the first."""
    given = f"{names[0]}=FOLDER"
    return ValueError(
        f"no folder is given for {', '.join(names)}: expected --dataset {given}, or {ROOTS_VARIABLE}={given}"
    )


def roots() -> dict[str, str]:
    """Reads the folders by data set; ValueError if the variable does not have the expected form."""
    found = {}
    for part in filter(None, os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep)):
        name, _, folder = part.partition("=")
        if not name or not folder:
            raise ValueError(f"{ROOTS_VARIABLE} must be {ROOTS_FORMAT}; got {part!r}")
        found[name] = folder
    return found
