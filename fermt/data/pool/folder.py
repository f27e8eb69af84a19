"""The layout of a pool of free images, and its division into training and validation images."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...images import select_images

HELD_OUT = 20  # one image in this many is for validation
LAYOUT = """\
  photos/    photographs, in any folders below it
  cutouts/   objects with alpha, in any folders below it
  boxes/     annotations.json in COCO's form, whose file names are relative to the pool
  video/     folders of frames (clips), and tracks.json: a list of {"clip", "first", "boxes": [[x, y, w, h], ...]}"""
SPLITS = ("train", "val")


def require(root: Path, *parts: str) -> Path:
    """Returns the path of a part of the pool; FileNotFoundError, with the layout, if it is missing."""
    path = root.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"the pool has no {str(path)!r}. Expected layout:\n{LAYOUT}")
    return path


def in_split(name: str, split: str) -> bool:
    """Whether the image of that name belongs to a split, which depends on the name only."""
    if split not in SPLITS:
        raise ValueError(f"a pool has split {' or '.join(SPLITS)}; got {split!r}")
    held_out = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % HELD_OUT == 0
    return held_out == (split == "val")


def image_files(folder: Path, root: Path, split: str) -> list[Path]:
    """Lists the images of a split in a folder and below, in the order of their paths."""
    files = select_images(sorted(folder.rglob("*")), folder)
    kept = [path for path in files if in_split(path.relative_to(root).as_posix(), split)]
    if not kept:
        raise FileNotFoundError(f"no images of split {split!r} in {str(folder)!r}. Expected layout:\n{LAYOUT}")
    return kept
