"""Runs a packed model on a GPU: one Triton `Frame` for each model and batch size, kept from call to call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import triton as triton_backend
from .cuda_graph import Captured, Upload
from .cuda_model import CudaPackedModel
from .workspace import Workspace


class Session:
    """A Triton frame for one model and batch size, as CUDA graphs if `captured`."""

    def __init__(self, packed: CudaPackedModel, batch: int, captured: bool) -> None:
        self.packed = packed  # kept alive: its id is the session's key
        self.frame = triton_backend.make_frame(packed.weights, packed.sizes, batch)
        self._installed: list[tuple[Tensor, int] | None] = [None] * batch  # for each target: caches and row
        self._window: Tensor | None = None
        searches, templates = self.frame.searches, self.frame.templates
        self._put_searches: Callable[[Tensor], object] = searches.copy_
        self._put_templates: Callable[[Tensor], object] = templates.copy_
        self._encode, self._track = self.frame.encode, self.frame.track
        if captured:
            self._put_searches = Upload(searches)
            self._encode, self._track = (Captured(run, packed.device) for run in (self._encode, self._track))

    def encode(self, crops: Tensor) -> Tensor:
        """Encodes templates and returns their caches."""
        self._put_templates(crops)
        self._encode()
        caches = self.frame.caches()
        self._installed = [(caches, i) for i in range(len(caches))]
        return caches

    def track(self, caches: Sequence[tuple[Tensor, int]], crops: Tensor, window: Tensor | None) -> None:
        """Runs a frame; caches are (tensor, row), and are copied only if they are not installed yet."""
        for target, (tensor, row) in enumerate(caches):
            before = self._installed[target]
            if before is None or before[0] is not tensor or before[1] != row:
                self.frame.install(target, tensor.view(-1, tensor.shape[-1])[row])
                self._installed[target] = tensor, row
        if window is not self._window:
            self.frame.head.window.copy_(
                torch.ones((), dtype=torch.float32, device=self.frame.head.window.device) if window is None else window
            )
            self._window = window
        put: Callable[[Tensor], object] = (
            self._put_searches if crops.device.type == "cpu" else self.frame.searches.copy_
        )
        put(crops)
        self._track()


def cache_bytes(packed: CudaPackedModel, batch: int) -> int:
    """Size of one target's cache in bytes."""
    return packed.sizes.cache_bytes(packed.dtype)


def encode(packed: CudaPackedModel, crops: Tensor, workspace: Workspace | None) -> Tensor:
    """Computes caches (B, cache_bytes) of template crops (B, S, S, 3)."""
    return _session(packed, len(crops), workspace).encode(crops)


def track(
    packed: CudaPackedModel,
    caches: Tensor | Sequence[Tensor],
    crops: Tensor,
    workspace: Workspace | None,
    tokens: bool,
    window: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Computes maps (B, channels, g, g), boxes (B, 5) and, if wanted, tokens of search crops (B, S, S, 3)."""
    batch = len(crops)
    rows = [(caches, i) for i in range(batch)] if isinstance(caches, Tensor) else [(cache, 0) for cache in caches]
    session = _session(packed, batch, workspace)
    session.track(rows, crops, window)
    head = session.frame.head
    last = session.frame.layers.tokens.to(torch.float32, copy=True) if tokens else None
    return head.maps.clone(), head.boxes.clone(), last


def _session(packed: CudaPackedModel, batch: int, workspace: Workspace | None) -> Session:
    def make() -> Session:
        with torch.inference_mode(False):  # inference tensors could not be written to outside it
            return Session(packed, batch, captured=workspace is not None and packed.device.type == "cuda")

    return make() if workspace is None else workspace.keep((id(packed), batch), make)
