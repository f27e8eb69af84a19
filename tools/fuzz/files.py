"""Fuzz targets that read: valid files, changed at drawn places, must load or be refused by a clear error."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import fermt
import fermt_kernels as fk
from fermt.checkpoints import read_pickled
from fermt.model import layers
from fermt_kernels.frame.format import CHECKSUM_FIELD, checksum

REFUSED = (ValueError, OSError)
CONFIG = fermt.ModelConfig(
    patterns=("mixed", "cross"),
    dim=32,
    num_heads=2,
    mlp_ratio=1.5,
    patch_size=8,
    template_size=16,
    search_size=32,
)
WIDTHS = (32, 16, 16, 16)  # of the head: the model's own would be nearly all of a file, and of the time
MEMORY = "/dev/shm"  # a file system in memory, where there is one: a case of text takes a tenth of the time
LARGEST_SIDE = 512  # pixels
EDGES = (0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, -(2**63))  # numbers that break sizes


def small_head() -> mock._patch[tuple[int, ...]]:
    """A context in which models have narrow heads."""
    return mock.patch.object(layers, "WIDTHS", WIDTHS)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is deleted with the process: making one for each case would be most of the work."""
    return tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)


@contextmanager
def drawn_file(data: bytes, name: str = "file") -> Iterator[Path]:
    """A file of these bytes, and the path to it."""
    path = Path(_folder().name) / name
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()


@cache
def _valid(kind: str) -> bytes:
    """A small valid file of a kind."""
    torch.manual_seed(0)
    with small_head(), drawn_file(b"") as path:
        model = fermt.build_model(CONFIG).eval()
        if kind == "packed":
            small = fk.frame.pack(model)
            assert isinstance(small, fk.frame.PackedModel)  # the model is on the CPU
            small.save(path)
        elif kind == "weights":
            fermt.save(model, path)
        else:
            torch.save({"net": model.state_dict(), "epoch": 3}, path)
        return path.read_bytes()


def changed(data: bytes, rng: np.random.Generator, first: int = 0) -> bytes:
    """The data with a few drawn changes: bytes, numbers of eight bytes, pieces cut out, doubled or cut off.

    The first `first` bytes, where sizes are, are changed as often as all others together.
    """
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        end = first if first and rng.integers(2) else len(result)
        at = int(rng.integers(max(1, min(end, len(result)))))
        kind = int(rng.integers(5))
        if kind == 0:
            result[at : at + 1] = bytes((int(rng.integers(256)),))
        elif kind == 1:
            at -= at % 8
            result[at : at + 8] = int(rng.choice(EDGES)).to_bytes(8, "little", signed=True)
        elif kind == 2:
            del result[at : at + int(rng.integers(1, 64))]
        elif kind == 3:
            result[at:at] = result[at : at + int(rng.integers(1, 64))]
        elif rng.integers(4) == 0:
            del result[at:]
    return bytes(result)


def packed(rng: np.random.Generator) -> None:
    """Packed models, their checksum made right again so that what comes after it is reached, too."""
    data = bytearray(changed(_valid("packed"), rng, first=1024))
    if len(data) >= 1024 and rng.integers(8):
        data[CHECKSUM_FIELD] = checksum(torch.frombuffer(data, dtype=torch.uint8)).to_bytes(8, "little")
    with drawn_file(bytes(data)) as path:
        try:
            model = fk.frame.load(path)
        except REFUSED:
            return
        sides = (model.template_size, model.search_size)
        if not all(0 < side <= LARGEST_SIDE for side in sides):
            return  # its memory would be refused or exhausted, which is no fault of the reader
        template, search = (torch.zeros(1, side, side, 3, dtype=torch.uint8, device="cpu") for side in sides)
        try:
            fk.frame.track_frame(model, fk.frame.encode_template(model, template), search)
        except (*REFUSED, RuntimeError):
            return


def weights(rng: np.random.Generator) -> None:
    """Weights in safetensors."""
    data = _valid("weights")
    with drawn_file(changed(data, rng, first=8 + int.from_bytes(data[:8], "little"))) as path, small_head():
        try:
            fermt.load(path)
        except REFUSED:
            return


def checkpoint(rng: np.random.Generator) -> None:
    """Pickled checkpoints, which are read without running the code in them."""
    with drawn_file(changed(_valid("checkpoint"), rng, first=2048)) as path:
        try:
            read_pickled(path)
        except REFUSED:
            return
