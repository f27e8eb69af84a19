"""Runs a packed model on the CPU, in the compiled library."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..cpp import frame as compiled
from .format import ALIGNMENT, aligned_empty, round_up
from .packed import PackedModel
from .workspace import Workspace


def cache_bytes(packed: PackedModel, batch: int) -> int:
    """Size of one target's cache in bytes."""
    return packed.info(batch).cache_bytes


def encode(packed: PackedModel, crops: Tensor, workspace: Workspace | None) -> Tensor:
    """Computes caches (B, cache_bytes) of template crops (B, S, S, 3)."""
    crops, addresses = _addresses(crops)
    info = packed.info(len(addresses))
    caches = aligned_empty((len(addresses), info.cache_bytes))
    base = caches.data_ptr()
    cache_addresses = [base + i * info.cache_bytes for i in range(len(addresses))]
    memory = (workspace or Workspace()).reserve(info.workspace_bytes)
    compiled.encode_template(packed.blob, addresses, cache_addresses, info.cache_bytes, memory)
    return caches


def track(
    packed: PackedModel, caches: Tensor | Sequence[Tensor], crops: Tensor, workspace: Workspace | None, tokens: bool
) -> tuple[Tensor, Tensor | None]:
    """Computes maps (B, channels, g, g) and, if wanted, tokens of search crops (B, S, S, 3)."""
    crops, addresses = _addresses(crops)
    batch, grid = len(addresses), packed.grid
    info = packed.info(batch)
    _kept, cache_addresses = _caches(caches)
    memory = (workspace or Workspace()).reserve(info.workspace_bytes)
    maps = aligned_empty((batch, info.map_channels, grid, grid), torch.float32)
    last = aligned_empty((batch, grid * grid, info.dim), torch.float32) if tokens else None
    compiled.track_frame(packed.blob, addresses, cache_addresses, info.cache_bytes, memory, maps, last)
    return maps, last


def _addresses(crops: Tensor) -> tuple[Tensor, list[int]]:
    """Contiguous crops, which must outlive the call, and the address of each."""
    crops, step = crops.contiguous(), crops[0].numel()
    return crops, [crops.data_ptr() + i * step for i in range(len(crops))]


def _caches(caches: Tensor | Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Aligned caches, which must outlive the call, and the address of each."""
    kept, addresses = [], []
    for given in [caches] if isinstance(caches, Tensor) else caches:
        rows, row_addresses = _rows(given.unsqueeze(0) if given.dim() == 1 else given)
        kept.append(rows)
        addresses += row_addresses
    return kept, addresses


def _rows(rows: Tensor) -> tuple[Tensor, list[int]]:
    """Rows (B, n) and their addresses; a copy unless each row is contiguous and starts at a multiple of 64 bytes."""
    count, length = rows.shape
    if rows.stride(1) != 1 or rows.data_ptr() % ALIGNMENT or (count > 1 and rows.stride(0) % ALIGNMENT):
        rows = aligned_empty((count, round_up(length, ALIGNMENT)))[:, :length].copy_(rows)
    base, step = rows.data_ptr(), rows.stride(0)
    return rows, [base + i * step for i in range(count)]
