"""Runs a packed model on a GPU: one Triton `Frame` for each model and batch size, kept from call to call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import triton as triton_backend
from .cuda_graph import Captured, Upload
from .cuda_image import StaticImage, StaticImages
from .cuda_model import CudaPackedModel
from .workspace import Workspace

Caches = Sequence[tuple[Tensor, int]]  # of each target: the tensor, and its row


class Session:
    """A Triton frame for one model and batch size, as CUDA graphs if `captured`."""

    def __init__(self, packed: CudaPackedModel, batch: int, captured: bool) -> None:
        self._captured = captured
        self.packed = packed  # kept alive: its id is the session's key
        self.frame = triton_backend.make_frame(packed.weights, packed.sizes, batch)
        self._installed: list[tuple[Tensor, int] | None] = [None] * batch  # for each target: caches and row
        self._window: Tensor | None = None
        searches, templates, squares = self.frame.searches, self.frame.templates, self.frame.squares
        self._put_searches: Callable[[Tensor], object] = searches.copy_
        self._put_squares: Callable[[Tensor], object] = squares.copy_
        self._put_templates: Callable[[Tensor], object] = templates.copy_
        self._encode, self._track = self.frame.encode, self.frame.track
        self._of_images: WeakKeyDictionary[StaticImage, Callable[[], None]] = WeakKeyDictionary()
        if captured:
            self._put_searches, self._put_squares = Upload(searches), Upload(squares)
            self._encode, self._track = (Captured(run, packed.device) for run in (self._encode, self._track))

    def encode(self, crops: Tensor) -> Tensor:
        """Encodes templates and returns their caches."""
        self._put_templates(crops)
        self._encode()
        caches = self.frame.caches()
        self._installed = [(caches, i) for i in range(len(caches))]
        return caches

    def track(self, caches: Caches, crops: Tensor, window: Tensor | None) -> None:
        """Runs a frame of crops; caches are (tensor, row), and are copied only if they are not installed yet."""
        self._install(caches, window)
        put: Callable[[Tensor], object] = (
            self._put_searches if crops.device.type == "cpu" else self.frame.searches.copy_
        )
        put(crops)
        self._track()

    def track_image(self, caches: Caches, image: StaticImage, squares: Tensor, window: Tensor | None) -> None:
        """Runs a frame whose crops are cut out of an image at `squares` (B, 3)."""
        self._install(caches, window)
        put: Callable[[Tensor], object] = (
            self._put_squares if squares.device.type == "cpu" else self.frame.squares.copy_
        )
        put(squares)
        if image not in self._of_images:
            # It knows the pixels, not their owner: with the latter it goes, too.
            run: Callable[[], None] = partial(self.frame.track_image, image.pixels, image.bgr)
            self._of_images[image] = Captured(run, self.packed.device) if self._captured else run
        self._of_images[image]()

    def _install(self, caches: Caches, window: Tensor | None) -> None:
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
    session = _session(packed, len(crops), workspace)
    session.track(_rows(caches), crops, window)
    head = session.frame.head
    last = session.frame.layers.tokens.to(torch.float32, copy=True) if tokens else None
    return head.maps.clone(), head.boxes.clone(), last


def track_image(
    packed: CudaPackedModel,
    caches: Tensor | Sequence[Tensor],
    image: Tensor,
    squares: Tensor,
    bgr: bool,
    workspace: Workspace | None,
    window: Tensor | None,
) -> Tensor:
    """Computes boxes (B, 5) of targets in the squares (B, 3) of an image (H, W, 3)."""
    session = _session(packed, len(squares), workspace)
    height, width, _ = image.shape
    static = _images(packed.device, workspace).of(height, width, bgr)
    static.put(image, squares)
    session.track_image(_rows(caches), static, squares, window)
    return session.frame.head.boxes.clone()


def _rows(caches: Tensor | Sequence[Tensor]) -> Caches:
    if isinstance(caches, Tensor):
        return [(caches, i) for i in range(len(caches))]
    return [(cache, 0) for cache in caches]


def _images(device: torch.device, workspace: Workspace | None) -> StaticImages:
    """A workspace's images, which the graphs of all its models and batch sizes read."""
    if workspace is None:
        return StaticImages(device, uploads=False)
    return workspace.keep(("images", device), lambda: StaticImages(device, uploads=device.type == "cuda"))


def _session(packed: CudaPackedModel, batch: int, workspace: Workspace | None) -> Session:
    def make() -> Session:
        with torch.inference_mode(False):  # inference tensors could not be written to outside it
            return Session(packed, batch, captured=workspace is not None and packed.device.type == "cuda")

    return make() if workspace is None else workspace.keep((id(packed), batch), make)
