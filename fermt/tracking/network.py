"""Networks for trackers: from crops to boxes and scores, for one target or a batch of targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, get_args

import numpy as np
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.modes import evaluating
from fermt_kernels.wrapped import unwrapped

from ..data import normalize, normalize_batch
from ..model import FERMT
from .images import Image

Packed = fk.frame.PackedModel | fk.frame.CudaPackedModel
BOX = 5  # numbers of a result: cx, cy, w, h and the score
TWO = "a packed frame has one template for each target, and refresh_every needs two"
OTHERS = "the model's attention and Dual Attention Unit are not all of this package and on one backend"


class Network(Protocol):
    """A model that is ready to run.

    Crops are uint8 RGB: templates (S, S, 3), search regions (B, S, S, 3); arrays, or tensors where the model is.
    """

    device: torch.device
    template_size: int
    search_size: int
    template_factor: float
    search_factor: float

    def encode(self, template: Image) -> Tensor:
        """Encodes a template crop for `locate`."""

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: Image) -> Tensor:
        """Finds targets: boxes and scores, (B, 5) on the CPU, as by `fk.frame.decode` under a Hann window.

        Args:
            encoded: the templates of the target of each search region; a `PackedNetwork` takes one each.
            searches: the search regions.
        """


class PackedNetwork:
    """A packed model, which runs a frame in one call of the compiled library."""

    def __init__(self, packed: Packed) -> None:
        self._packed, self.device = packed, packed.device
        self._workspace = fk.frame.Workspace()
        self._window = hann_window(packed.grid).to(packed.device, torch.float32)
        self.template_size, self.search_size = packed.template_size, packed.search_size
        self.template_factor, self.search_factor = packed.template_factor, packed.search_factor

    def encode(self, template: Image) -> Tensor:
        return fk.frame.encode_template(self._packed, _tensor(template), workspace=self._workspace)

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: Image) -> Tensor:
        return self._boxes([cache for (cache,) in encoded], _tensor(searches)).cpu()

    def _boxes(self, caches: list[Tensor], crops: Tensor) -> Tensor:
        return fk.frame.track_frame(
            self._packed, caches, crops, workspace=self._workspace, boxes=True, window=self._window
        )["boxes"]


class ImageNetwork(PackedNetwork):
    """A packed model on a GPU, where one CUDA graph cuts search regions out of an image and finds the targets.

    Each batch size needs a graph: only powers of two run, the first target over again in what is left.
    """

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: Image) -> Tensor:
        caches, crops = _filled(encoded), _tensor(searches)
        more = len(caches) - len(crops)
        return self._boxes(caches, torch.cat((crops, crops[:1].expand(more, -1, -1, -1))))[: len(crops)].cpu()

    def locate_image(self, encoded: Sequence[Sequence[Tensor]], image: Tensor, squares: Tensor, bgr: bool) -> Tensor:
        """Finds targets as `locate`, in the squares (B, 3) of an image (H, W, 3), as for `fk.frame.track_image`."""
        caches = _filled(encoded)
        found = fk.frame.track_image(
            self._packed,
            caches,
            image,
            torch.cat((squares, squares[:1].expand(len(caches) - len(squares), -1))),
            bgr=bgr,
            workspace=self._workspace,
            window=self._window,
        )
        return found[: len(squares)].cpu()


def _filled(encoded: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The only template of each target, and the first ones again up to a power of two."""
    caches = [cache for (cache,) in encoded]
    return caches + caches[:1] * ((1 << (len(caches) - 1).bit_length()) - len(caches))


def _tensor(crops: Image) -> Tensor:
    return torch.from_numpy(crops) if isinstance(crops, np.ndarray) else crops


class ModuleNetwork:
    """The model itself, in its own dtype and on its own device; templates are encoded in every frame.

    It is in evaluation mode while it locates, and otherwise in the mode that its owner wants.
    """

    def __init__(self, model: FERMT) -> None:
        self._model = model
        config, parameter = model.config, next(model.parameters())
        self._dtype, self.device = parameter.dtype, parameter.device
        self._window = hann_window(config.search_grid).to(self.device, torch.promote_types(self._dtype, torch.float32))
        self.template_size, self.search_size = config.template_size, config.search_size
        self.template_factor, self.search_factor = config.template_factor, config.search_factor

    def _normalized(self, crop: Image) -> Tensor:
        if isinstance(crop, Tensor):
            return normalize_batch(crop.unsqueeze(0), dtype=self._dtype)
        return normalize(crop, dtype=self._dtype, device=self.device)

    def encode(self, template: Image) -> Tensor:
        return self._normalized(template)

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: Image) -> Tensor:
        found = torch.empty((len(searches), BOX), dtype=torch.float64, device="cpu")
        regions = torch.cat([self._normalized(crop) for crop in searches])
        for count in {len(templates) for templates in encoded}:  # targets with one template, then those with two
            chosen = [i for i, templates in enumerate(encoded) if len(templates) == count]
            templates = torch.stack([torch.cat(tuple(encoded[i])) for i in chosen])
            with evaluating(self._model):
                maps = self._model(templates if count > 1 else templates.squeeze(1), regions[chosen])
            found[chosen] = fk.frame.decode(maps, self._window).double().cpu()
        return found


def network_for(
    model: FERMT | Packed, dtype: torch.dtype | None, second_template: bool = False
) -> PackedNetwork | ModuleNetwork:
    """Chooses the packed frame if there is one for the model's device, dtype and backend, else the model itself.

    Args:
        model: the model, packed or not.
        dtype: of the packed frame's matrices; None: that of the model.
        second_template: whether targets may have two templates, which a packed frame does not support.

    Raises:
        TypeError: the model is no model of these, or the dtype none of PyTorch's.
        ValueError: there is no packed frame for the dtype or packed model requested, or the model is on the meta
            device; the message says why.
    """
    model = unwrapped(model)
    if not isinstance(model, (FERMT, *get_args(Packed))):
        raise TypeError(f"expected a FERMT or a packed model, such as fermt.load(...) gives; got {model!r:.80}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be None or a dtype such as torch.bfloat16, got {dtype!r}")
    if isinstance(model, Packed):
        if second_template:
            raise ValueError(f"{TWO}; give the model itself")
        if dtype not in (None, model.dtype):
            raise ValueError(f"the model was packed in {model.dtype}, and cannot run in {dtype}; pack it again")
        return _packed_network(model)
    parameter = next(model.parameters())
    if parameter.is_meta:
        raise ValueError("the model's weights have no values: it is on the meta device (to_empty, then load weights)")
    wanted = dtype or parameter.dtype
    if second_template:
        reason: str | None = TWO
    else:
        reason = (
            OTHERS if model.backend is None else fk.frame.unavailable_reason(wanted, parameter.device, model.backend)
        )
    if reason is None:
        return _packed_network(fk.frame.pack(model, wanted, backend=model.backend or "auto"))
    if wanted != parameter.dtype:
        raise ValueError(f"no packed frame in {wanted}: {reason}")
    return ModuleNetwork(model)


def _packed_network(packed: Packed) -> PackedNetwork:
    return (ImageNetwork if isinstance(packed, fk.frame.CudaPackedModel) else PackedNetwork)(packed)


def hann_window(size: int) -> Tensor:
    """A Hann window, (size, size) float64, without its zero ends, which favors the center."""
    steps = torch.arange(1, size + 1, dtype=torch.float64, device="cpu")
    line = 0.5 * (1 - torch.cos(2 * torch.pi * steps / (size + 1)))
    return torch.outer(line, line)
