"""Reusable memory for the intermediate results of a frame."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from ..locks import ObjectLock
from .format import aligned_empty


class Workspace:
    """Reusable memory for the intermediate results of `encode_template` and `track_frame`. It grows as needed.

    One call at a time uses it: calls from several threads wait for each other, so give each thread its own where they
    should run at once. On a GPU it also holds a CUDA graph for each model and batch size, captured at the first call,
    the graph's memory, and for `track_image` another graph for each of the two sizes of images that came last.
    """

    def __init__(self) -> None:
        self.lock = ObjectLock()  # held by a call that uses the memory
        self._buffer = aligned_empty((0,))
        self._kept: dict[Hashable, Any] = {}

    @property
    def nbytes(self) -> int:
        """Size of its memory on the CPU in bytes."""
        return self._buffer.nbytes

    def reserve(self, nbytes: int) -> Tensor:
        """At least `nbytes` of memory on the CPU, uint8; its contents are undefined."""
        if self._buffer.nbytes < nbytes:
            self._buffer = aligned_empty((nbytes,))
        return self._buffer

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The object of that key, which `make` makes at the first call."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]
