"""Fuzz targets that parse text: boxes to start with, results of trackers, and the lists of data sets."""

from __future__ import annotations

import math

import numpy as np

from fermt.datasets.folder import read_boxes
from fermt.evaluation.results import ResultError, read_result
from fermt.textfiles import read_lines, read_names
from fermt.tracking.starts import read_starts

from .files import changed, drawn_file
from .numbers import WrongResultError

REFUSED = (ValueError, OSError)
STARTS = (
    b"1,2,3,4\n10;20;30;40\n",
    b"\xef\xbb\xbf# boxes\n\n5 6 7 8\n",
    b"0,a,1,2,3,4\n12,b,5,6,7,8\n",
    b"frame,id,x,y,w,h,score,lost\n0,a,1,2,3,4,1.0,0\n1,a,2,2,3,4,0.5,0\n",
    b'{"frame": 0, "id": "a", "x": 1, "y": 2, "w": 3, "h": 4}\n',
)
WORDS = (
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"0x10",
    b",,",
    b"\x00",
    b"\xff",
    b"\r",
    b"\xc2\xa0",
    b"9" * 400,
    b"{",
    b"[" * 2000,
)


def _drawn(valid: bytes, rng: np.random.Generator) -> bytes:
    data = changed(valid, rng) if rng.integers(2) else valid
    for _ in range(int(rng.integers(3))):
        at = int(rng.integers(len(data) + 1))
        data = data[:at] + WORDS[rng.integers(len(WORDS))] + data[at:]
    return data


def boxes(rng: np.random.Generator) -> None:
    """Files of boxes to start with: finite numbers, or refused."""
    with drawn_file(_drawn(STARTS[rng.integers(len(STARTS))], rng), "boxes.csv") as path:
        try:
            starts = read_starts(path)
        except REFUSED:
            return
        for start in starts:
            if len(start.box) != 4 or not all(map(math.isfinite, start.box)) or start.frame < 0:
                raise WrongResultError(f"boxes: {path.read_bytes()!r} was read as {start}")


def results(rng: np.random.Generator) -> None:
    """Results of a tracker: a box of four numbers a line, or refused."""
    with drawn_file(_drawn(b"1,2,3,4\n1.5\t2\t3\t4\n1 2 3 4\n", rng), "a.txt") as path:
        try:
            found = read_result(path.parent, "a")
        except (ResultError, *REFUSED):
            return
        for one in found:
            if one.boxes.ndim != 2 or one.boxes.shape[1] != 4:
                raise WrongResultError(f"results: {path.read_bytes()!r} was read as {one.boxes.shape}")


def lists(rng: np.random.Generator) -> None:
    """Lists of names and of true boxes."""
    with drawn_file(_drawn(b"one\ntwo\n\n1,2,3,4\n", rng)) as path:
        for read in (read_names, read_lines, read_boxes):
            try:
                read(path)
            except REFUSED:
                continue
