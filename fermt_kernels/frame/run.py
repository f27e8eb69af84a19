"""Running a packed model: the template once for each target, then a call a frame."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import backends
from ..cpp import frame as compiled
from ..cpp.abi import DTYPES
from .format import ALIGNMENT, aligned_empty, round_up
from .packed import PackedModel

# For each head its maps in the order in which the library writes them, and the channels of each.
MAPS = {
    "center": {"score_map": 1, "size_map": 2, "offset_map": 2},
    "corner": {"prob_tl": 1, "prob_br": 1},
}
PEAK_RUNS = 5
PEAK_SECONDS = 0.02  # of one run
PEAK_DTYPES = (torch.float32, torch.bfloat16)


class Workspace:
    """Memory for what a call computes on the way. It grows as needed; one call at a time may use it."""

    def __init__(self) -> None:
        self._buffer = aligned_empty((0,))

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes

    def reserve(self, nbytes: int) -> Tensor:
        """At least `nbytes` of memory, uint8; what an earlier call left in it is not kept."""
        if self._buffer.nbytes < nbytes:
            self._buffer = aligned_empty((nbytes,))
        return self._buffer


def why_not(dtype: torch.dtype, device: torch.device | str = "cpu", backend: str = "auto") -> str | None:
    """Why no packed frame can run in `dtype` on `device` under `backend`, or None if one can.

    Raises:
        ValueError: there is no such backend.
    """
    name = backends.requested(backend)
    candidates = list(backends.ROOMS) if name == backends.AUTO else [name]
    reasons = {
        row: backends.why_unsupported(row, "track_frame", torch.device(device).type, dtype) for row in candidates
    }
    if None in reasons.values():
        return None
    return "; ".join(f"{row}: {reason}" for row, reason in reasons.items())


def encode_template(packed: PackedModel, crops: Tensor, *, workspace: Workspace | None = None) -> Tensor:
    """What `track_frame` needs of the templates, computed once.

    Args:
        packed: the model.
        crops: uint8 RGB on the CPU, (B, S, S, 3) or, for one template, (S, S, 3), with S = `packed.template_size`.
        workspace: memory to use; some is allocated if None.

    Returns:
        uint8 (B, cache_bytes). It goes with this model and the instruction set in use, and only in this process.

    Raises:
        TypeError, ValueError: an argument is not of that form; the message carries the value.
        RuntimeError: the compiled library is not usable, with the reason.
    """
    crops, addresses = _crops("encode_template", packed, crops, "template_size")
    info = packed.info(len(addresses))
    caches = aligned_empty((len(addresses), info.cache_bytes))
    memory = _memory("encode_template", workspace, info.workspace_bytes)
    base = caches.data_ptr()
    places = [base + i * info.cache_bytes for i in range(len(addresses))]
    compiled.encode_template(packed.blob, addresses, places, info.cache_bytes, memory)
    return caches


def track_frame(
    packed: PackedModel,
    caches: Tensor | Sequence[Tensor],
    crops: Tensor,
    *,
    workspace: Workspace | None = None,
    tokens: bool = False,
) -> dict[str, Tensor]:
    """The head's maps for B search regions, each with its target's template.

    Args:
        packed: the model.
        caches: what `encode_template` gave: uint8 (B, cache_bytes), or a sequence of B rows, each (cache_bytes,) or
            (1, cache_bytes).
        crops: uint8 RGB on the CPU, (B, S, S, 3) or, for one region, (S, S, 3), with S = `packed.search_size`.
        workspace: memory to use; some is allocated if None, which costs time.
        tokens: whether the result has `tokens` too.

    Returns:
        float32 tensors as the model's head gives them: `score_map` (B, 1, g, g), `size_map` and `offset_map`
        (B, 2, g, g), or `prob_tl` and `prob_br` (B, g^2), g = `packed.grid`; and, if asked for, `tokens`
        (B, g^2, dim), the search region's after the last norm.

    Raises:
        TypeError, ValueError: an argument is not of that form; the message carries the value.
        RuntimeError: the compiled library is not usable, with the reason.
    """
    crops, addresses = _crops("track_frame", packed, crops, "search_size")
    batch, grid = len(addresses), packed.grid
    info = packed.info(batch)
    _kept, places = _caches(caches, batch, info.cache_bytes)
    memory = _memory("track_frame", workspace, info.workspace_bytes)
    maps = aligned_empty((batch, info.map_channels, grid, grid), torch.float32)
    last = aligned_empty((batch, grid * grid, info.dim), torch.float32) if tokens else None
    compiled.track_frame(packed.blob, addresses, places, info.cache_bytes, memory, maps, last)
    channels = MAPS[packed.head]
    outputs = dict(zip(channels, maps.split_with_sizes(list(channels.values()), dim=1), strict=True))
    if packed.head == "corner":
        outputs = {name: value.flatten(1) for name, value in outputs.items()}
    return outputs if last is None else outputs | {"tokens": last}


def peak_flops(dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second that this machine's multiply-adds reach on torch's threads, measured.

    An upper bound for what a matrix product can do here: the best of several runs of nothing but multiply-adds on
    registers, in the instruction set in use.

    Args:
        dtype: of the factors, torch.float32 or torch.bfloat16.

    Raises:
        TypeError: another dtype.
        RuntimeError: the compiled library is not usable, with the reason.
    """
    if dtype not in PEAK_DTYPES:
        raise TypeError(f"peak_flops: dtype must be one of {', '.join(map(str, PEAK_DTYPES))}; got {dtype!r}")
    threads, iterations = torch.get_num_threads(), 1024

    def run() -> tuple[float, int]:
        start = time.perf_counter()
        operations = compiled.fma_peak(DTYPES[dtype], threads, iterations)
        return time.perf_counter() - start, operations

    seconds, _ = run()
    while seconds < PEAK_SECONDS / 4:
        iterations *= 2
        seconds, _ = run()
    iterations = max(1, round(iterations * PEAK_SECONDS / seconds))
    return max(operations / seconds for seconds, operations in (run() for _ in range(PEAK_RUNS)))


def _crops(op: str, packed: PackedModel, crops: Tensor, size_name: str) -> tuple[Tensor, list[int]]:
    """The crops as the library wants them, and the address of each."""
    if not isinstance(packed, PackedModel):
        raise TypeError(f"{op}: packed must be a PackedModel (fermt_kernels.frame.pack), got {type(packed).__name__}")
    size = getattr(packed, size_name)
    if not isinstance(crops, Tensor):
        raise TypeError(f"{op}: crops must be a uint8 tensor (B, {size}, {size}, 3), RGB; got {type(crops).__name__}")
    if crops.dtype != torch.uint8:
        raise TypeError(f"{op}: crops must be uint8, RGB; got {crops.dtype}")
    if crops.dim() == 3:
        crops = crops.unsqueeze(0)
    if crops.dim() != 4 or crops.shape[1:] != (size, size, 3) or crops.shape[0] == 0:
        raise ValueError(
            f"{op}: crops must have shape (B, {size}, {size}, 3) or ({size}, {size}, 3), got {tuple(crops.shape)}"
        )
    if crops.device.type != "cpu":
        raise ValueError(f"{op}: crops must be on the CPU, got {crops.device}")
    crops, step = crops.contiguous(), 3 * size * size
    return crops, [crops.data_ptr() + i * step for i in range(len(crops))]


def _caches(caches: Tensor | Sequence[Tensor], batch: int, cache_bytes: int) -> tuple[Tensor | list[Tensor], list[int]]:
    """The caches as the library wants them, to be kept while it reads them, and the address of each."""
    if isinstance(caches, Tensor):
        if caches.dim() != 2 or caches.shape != (batch, cache_bytes):
            raise ValueError(
                f"track_frame: caches must have shape ({batch}, {cache_bytes}), one row for each of {batch} crops, as "
                f"encode_template gives them for this model; got {tuple(caches.shape)}"
            )
        _check_cache(caches)
        return _rows(caches)
    if isinstance(caches, (str, bytes)) or not isinstance(caches, Sequence):
        raise TypeError(f"track_frame: caches must be a tensor or a sequence of tensors, got {type(caches).__name__}")
    if len(caches) != batch:
        raise ValueError(f"track_frame: caches must be {batch}, one for each crop; got {len(caches)}")
    kept, addresses = [], []
    for cache in caches:
        _check_cache(cache)
        if cache.shape not in ((cache_bytes,), (1, cache_bytes)):
            raise ValueError(
                f"track_frame: a cache must have shape ({cache_bytes},) or (1, {cache_bytes}), as encode_template "
                f"gives it for this model; got {tuple(cache.shape)}"
            )
        row, address = _rows(cache.unsqueeze(0) if cache.dim() == 1 else cache)
        kept.append(row)
        addresses += address
    return kept, addresses


def _check_cache(cache: Tensor) -> None:
    if not isinstance(cache, Tensor):
        raise TypeError(f"track_frame: a cache must be a uint8 tensor, got {type(cache).__name__}")
    if cache.dtype != torch.uint8:
        raise TypeError(f"track_frame: a cache must be a uint8 tensor, got {cache.dtype}")
    if cache.device.type != "cpu":
        raise ValueError(f"track_frame: a cache must be on the CPU, got {cache.device}")


def _rows(rows: Tensor) -> tuple[Tensor, list[int]]:
    """Rows (B, n) and their addresses; a copy unless each row is contiguous and starts at a multiple of 64 bytes."""
    count, length = rows.shape
    if rows.stride(1) != 1 or rows.data_ptr() % ALIGNMENT or (count > 1 and rows.stride(0) % ALIGNMENT):
        rows = aligned_empty((count, round_up(length, ALIGNMENT)))[:, :length].copy_(rows)
    base, step = rows.data_ptr(), rows.stride(0)
    return rows, [base + i * step for i in range(count)]


def _memory(op: str, workspace: Workspace | None, nbytes: int) -> Tensor:
    if workspace is None:
        return aligned_empty((nbytes,))
    if not isinstance(workspace, Workspace):
        raise TypeError(f"{op}: workspace must be a Workspace or None, got {type(workspace).__name__}")
    return workspace.reserve(nbytes)
