"""Memory for what a frame computes on the way."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from .format import aligned_empty


class Workspace:
    """Memory for what a call computes on the way. It grows as needed; one call at a time may use it.

    On a GPU it also keeps a CUDA graph for each model and batch, captured at the first call, and the memory that the
    graph reads and writes.
    """

    def __init__(self) -> None:
        self._buffer = aligned_empty((0,))
        self._kept: dict[Hashable, Any] = {}

    @property
    def nbytes(self) -> int:
        """Of its memory on the CPU."""
        return self._buffer.nbytes

    def reserve(self, nbytes: int) -> Tensor:
        """At least `nbytes` of memory on the CPU, uint8; what an earlier call left in it is not kept."""
        if self._buffer.nbytes < nbytes:
            self._buffer = aligned_empty((nbytes,))
        return self._buffer

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` made when `key` was asked for first."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
