"""Hands a packed model, crops and caches to csrc/frame; what they must be is the caller's to check."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from . import library


class FrameInfo(NamedTuple):
    """What the library says of a packed model, for one batch size and the instruction set in use."""

    cache_bytes: int  # of one template; a multiple of 64
    workspace_bytes: int
    map_channels: int
    grid: int
    template_size: int
    search_size: int
    head: int
    dtype: int
    dim: int
    template_factor: float
    search_factor: float


_NOT_YET = (0,) * len(FrameInfo._fields)


def frame_info(model: Tensor, batch: int, *, verify: bool = False) -> FrameInfo:
    """Sizes for `batch` samples; `verify` also checks the model's checksum."""
    fields = library.load().query("fermt_frame_info", model.data_ptr(), model.nbytes, verify, batch, *_NOT_YET)
    return FrameInfo(*fields[-len(_NOT_YET) :])


def encode_template(
    model: Tensor, crops: Sequence[int], caches: Sequence[int], cache_bytes: int, workspace: Tensor
) -> None:
    """Templates at the addresses `crops`, (S, S, 3) uint8, into those at `caches`, each of `cache_bytes`."""
    crop_list, cache_list = _addresses(crops), _addresses(caches)
    library.load().call("fermt_encode_template", *_common(model, crop_list, cache_list, cache_bytes, workspace))


def track_frame(
    model: Tensor,
    crops: Sequence[int],
    caches: Sequence[int],
    cache_bytes: int,
    workspace: Tensor,
    maps: Tensor,
    tokens: Tensor | None,
) -> None:
    """Search regions at the addresses `crops`, with the caches, into `maps` (B, channels, g, g) and `tokens`."""
    crop_list, cache_list = _addresses(crops), _addresses(caches)
    library.load().call(
        "fermt_track_frame",
        *_common(model, crop_list, cache_list, cache_bytes, workspace),
        maps.data_ptr(),
        0 if tokens is None else tokens.data_ptr(),
    )


def fma_peak(dtype: int, threads: int, iterations: int) -> int:
    """Runs multiply-adds on registers, `iterations` loops on each of `threads` items; how many operations it did."""
    loaded = library.load()
    return loaded.query("fermt_fma_peak", loaded.parallel_for, dtype, threads, iterations, 0)[-1]


def _addresses(values: Sequence[int]) -> array[int]:
    """A C array of pointers; it must outlive the call that is given its address."""
    return array("Q", values)


def _common(
    model: Tensor, crops: array[int], caches: array[int], cache_bytes: int, workspace: Tensor
) -> tuple[int, ...]:
    return (
        model.data_ptr(),
        model.nbytes,
        len(crops),
        crops.buffer_info()[0],
        caches.buffer_info()[0],
        cache_bytes,
        workspace.data_ptr(),
        workspace.nbytes,
    )
