"""Running a packed model on the CPU: addresses handed to the compiled library."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..cpp import frame as compiled
from .format import ALIGNMENT, aligned_empty, round_up
from .packed import PackedModel
from .workspace import Workspace


def cache_bytes(packed: PackedModel, batch: int) -> int:
    """Of one target."""
    return packed.info(batch).cache_bytes


def encode(packed: PackedModel, crops: Tensor, workspace: Workspace | None) -> Tensor:
    """Caches (B, cache_bytes) of template crops (B, S, S, 3)."""
    crops, addresses = _addresses(crops)
    info = packed.info(len(addresses))
    caches = aligned_empty((len(addresses), info.cache_bytes))
    base = caches.data_ptr()
    places = [base + i * info.cache_bytes for i in range(len(addresses))]
    memory = (workspace or Workspace()).reserve(info.workspace_bytes)
    compiled.encode_template(packed.blob, addresses, places, info.cache_bytes, memory)
    return caches


def track(
    packed: PackedModel, caches: Tensor | Sequence[Tensor], crops: Tensor, workspace: Workspace | None, tokens: bool
) -> tuple[Tensor, Tensor | None]:
    """Maps (B, channels, g, g) of search crops (B, S, S, 3), a cache each; and the tokens, if wanted."""
    crops, addresses = _addresses(crops)
    batch, grid = len(addresses), packed.grid
    info = packed.info(batch)
    _kept, places = _caches(caches)
    memory = (workspace or Workspace()).reserve(info.workspace_bytes)
    maps = aligned_empty((batch, info.map_channels, grid, grid), torch.float32)
    last = aligned_empty((batch, grid * grid, info.dim), torch.float32) if tokens else None
    compiled.track_frame(packed.blob, addresses, places, info.cache_bytes, memory, maps, last)
    return maps, last


def _addresses(crops: Tensor) -> tuple[Tensor, list[int]]:
    """The crops as the library wants them, to be kept while it reads them, and the address of each."""
    crops, step = crops.contiguous(), crops[0].numel()
    return crops, [crops.data_ptr() + i * step for i in range(len(crops))]


def _caches(caches: Tensor | Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """The same of caches: a tensor of rows, or rows (1, n)."""
    kept, addresses = [], []
    for given in [caches] if isinstance(caches, Tensor) else caches:
        rows, places = _rows(given.unsqueeze(0) if given.dim() == 1 else given)
        kept.append(rows)
        addresses += places
    return kept, addresses


def _rows(rows: Tensor) -> tuple[Tensor, list[int]]:
    """Rows (B, n) and their addresses; a copy unless each row is contiguous and starts at a multiple of 64 bytes."""
    count, length = rows.shape
    if rows.stride(1) != 1 or rows.data_ptr() % ALIGNMENT or (count > 1 and rows.stride(0) % ALIGNMENT):
        rows = aligned_empty((count, round_up(length, ALIGNMENT)))[:, :length].copy_(rows)
    base, step = rows.data_ptr(), rows.stride(0)
    return rows, [base + i * step for i in range(count)]
