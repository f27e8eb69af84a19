"""Where data sets lie, as the environment has it, for those whose folder nobody gives."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "FERMT_ROOTS"
FORM = (
    f"NAME=FOLDER, several with {os.pathsep!r} between them, such as got10k=/data/GOT-10k{os.pathsep}lasot=/data/LaSOT"
)


def roots() -> dict[str, str]:
    """Folders by data set; ValueError if the variable is not of its form."""
    found = {}
    for part in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        name, _, folder = part.partition("=")
        if not name or not folder:
            raise ValueError(f"{VARIABLE} must be {FORM}; got {part!r}")
        found[name] = folder
    return found


def root_of(name: str, given: Path | None) -> Path:
    """The folder that was given, or the environment's; ValueError says how to give one."""
    if given is not None:
        return given
    known = roots()
    if name not in known:
        raise ValueError(f"{name} needs the folder that it lies in: --root FOLDER, or {VARIABLE}={name}=FOLDER")
    return Path(known[name])
