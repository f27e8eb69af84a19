"""Small models on their way through the frame of a GPU, in Triton's interpreter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt_kernels.triton import frame_tiles
from fermt_kernels.triton.frame_tiles import MANY, Mode
from fermt_kernels.triton.launch import Tiles, Tuning

from ..test_frame import crops
from .packed import small_model

DTYPES = (torch.float32, torch.float16)
NARROW = (16, 16, 16, 16)  # the head's convolutions
Images = tuple[Tensor, Tensor]


LARGE = {itemsize: mode._replace(norm=Tiles(32, 1, 64, Tuning(4))) for itemsize, mode in MANY.items()}


def take(monkeypatch: pytest.MonkeyPatch, table: dict[int, Mode]) -> None:
    """Every batch runs by this table."""
    monkeypatch.setattr(frame_tiles, "FEW", table)


def model_of(head: str = "center", **choices: Any) -> fermt.FERMT:
    """Small: 4 tokens of the template, 9 of the search region."""
    return small_model(head, **{"widths": NARROW, "search_size": 24, "dau": False, "reweight": False} | choices)


def pack(model: fermt.FERMT, dtype: torch.dtype = torch.float32) -> fk.frame.CudaPackedModel:
    packed = fk.frame.pack(model, dtype, backend="triton")
    assert isinstance(packed, fk.frame.CudaPackedModel)
    return packed


def track(packed: fk.frame.CudaPackedModel, caches: Any, searches: Tensor, **more: Any) -> dict[str, Tensor]:
    return fk.frame.track_frame(packed, caches, searches, tokens=True, boxes=True, **more)


def run(
    packed: fk.frame.CudaPackedModel, images: Images, workspace: fk.frame.Workspace | None = None
) -> dict[str, Tensor]:
    caches = fk.frame.encode_template(packed, images[0], workspace=workspace)
    return track(packed, caches, images[1], workspace=workspace)


def crops_of(packed: fk.frame.CudaPackedModel, count: int, seed: int = 0) -> Images:
    return crops(SimpleNamespace(config=packed), count, seed)


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name
