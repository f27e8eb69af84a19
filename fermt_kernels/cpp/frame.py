"""Frames by the compiled library: pointers to a packed model, crops and caches. Callers check the arguments."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from . import library


class FrameInfo(NamedTuple):
    """Sizes and choices of a packed model, for one batch size on the instruction set in use."""

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


def frame_info(model: Tensor, batch: int, *, verify: bool = False) -> FrameInfo:
    """Asks the library for the sizes for `batch` samples; `verify` also checks the model's checksum.

    Raises:
        RuntimeError: there is no compiled library, or it refuses the model.
    """
    answer = library.load().query(
        "fermt_frame_info", model=model.data_ptr(), model_bytes=model.nbytes, verify=int(verify), batch=batch
    )
    return FrameInfo(**{name: answer[name] for name in FrameInfo._fields})


def encode_template(
    model: Tensor, crops: Sequence[int], caches: Sequence[int], cache_bytes: int, workspace: Tensor
) -> None:
    """Encodes templates at the addresses `crops`, (S, S, 3) uint8, into caches at the addresses `caches`."""
    crop_list, cache_list = _addresses(crops), _addresses(caches)
    library.load().call("fermt_encode_template", **_common(model, crop_list, cache_list, cache_bytes, workspace))


def track_frame(
    model: Tensor,
    crops: Sequence[int],
    caches: Sequence[int],
    cache_bytes: int,
    workspace: Tensor,
    maps: Tensor,
    tokens: Tensor | None,
) -> None:
    """Computes the maps (B, channels, g, g), and `tokens` unless None, of search crops at the addresses `crops`."""
    crop_list, cache_list = _addresses(crops), _addresses(caches)
    library.load().call(
        "fermt_track_frame",
        **_common(model, crop_list, cache_list, cache_bytes, workspace),
        maps=maps.data_ptr(),
        tokens=0 if tokens is None else tokens.data_ptr(),
    )


def fma_peak(dtype: int, threads: int, iterations: int) -> int:
    """Runs multiply-adds on registers, `iterations` loops on each of `threads` items; returns the operations done."""
    loaded = library.load()
    answer = loaded.query(
        "fermt_fma_peak", parallel_for=loaded.parallel_for, dtype=dtype, threads=threads, iterations=iterations
    )
    return answer["operations"]


def _addresses(values: Sequence[int]) -> array[int]:
    """A C array of pointers; it must outlive the call that gets its address."""
    return array("Q", values)


def _common(
    model: Tensor, crops: array[int], caches: array[int], cache_bytes: int, workspace: Tensor
) -> dict[str, int]:
    """The fields that both frame calls have."""
    return {
        "model": model.data_ptr(),
        "model_bytes": model.nbytes,
        "batch": len(crops),
        "crops": crops.buffer_info()[0],
        "caches": caches.buffer_info()[0],
        "cache_bytes": cache_bytes,
        "workspace": workspace.data_ptr(),
        "workspace_bytes": workspace.nbytes,
    }
