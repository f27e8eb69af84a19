"""What a tracker runs: crops in, boxes and scores out, for one target or for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import fermt_kernels as fk

from ..data import normalize
from ..model import FERMT

Packed = fk.frame.PackedModel | fk.frame.CudaPackedModel
BOX = 5  # numbers of what is found: cx, cy, w, h, and the score
TWO = "a packed frame has one template a target, and refresh_every wants two"
OTHERS = "the model's attention and Dual Attention Unit are not all this package's and on one backend"


class Network(Protocol):
    """A model and what it needs to run. Crops are uint8 RGB: templates (S, S, 3), search regions (B, S, S, 3)."""

    device: torch.device
    template_size: int
    search_size: int
    template_factor: float
    search_factor: float

    def encode(self, template: np.ndarray) -> Tensor:
        """What `locate` wants of a template crop."""

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: np.ndarray) -> Tensor:
        """Boxes and scores (B, 5) as `fk.frame.decode` gives them under a Hann window, on the CPU.

        Args:
            encoded: for each search region its target's templates; more than one only of a `ModuleNetwork`.
            searches: the regions.
        """


class PackedNetwork:
    """A packed model: a frame is one call, of the compiled library or of a CUDA graph; templates are encoded once."""

    def __init__(self, packed: Packed) -> None:
        self._packed, self.device = packed, packed.device
        self._workspace = fk.frame.Workspace()
        self._window = hann_window(packed.grid).to(packed.device, torch.float32)
        self.template_size, self.search_size = packed.template_size, packed.search_size
        self.template_factor, self.search_factor = packed.template_factor, packed.search_factor

    def encode(self, template: np.ndarray) -> Tensor:
        return fk.frame.encode_template(self._packed, torch.from_numpy(template), workspace=self._workspace)

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: np.ndarray) -> Tensor:
        caches, crops, count = [cache for (cache,) in encoded], torch.from_numpy(searches), len(searches)
        if self.device.type == "cuda":  # each batch is a graph of its own: powers of two are few
            more = (1 << (count - 1).bit_length()) - count
            caches, crops = caches + caches[:1] * more, torch.cat((crops, crops[:1].expand(more, -1, -1, -1)))
        maps = fk.frame.track_frame(
            self._packed, caches, crops, workspace=self._workspace, boxes=True, window=self._window
        )
        return maps["boxes"][:count].cpu()


class ModuleNetwork:
    """The model as it is, in its own dtype and on its own device; it sees the template in every frame."""

    def __init__(self, model: FERMT) -> None:
        self._model = model.eval()
        config, parameter = model.config, next(model.parameters())
        self._dtype, self.device = parameter.dtype, parameter.device
        self._window = hann_window(config.search_grid).to(self.device, torch.promote_types(self._dtype, torch.float32))
        self.template_size, self.search_size = config.template_size, config.search_size
        self.template_factor, self.search_factor = config.template_factor, config.search_factor

    def _normalized(self, crop: np.ndarray) -> Tensor:
        return normalize(crop, dtype=self._dtype, device=self.device)

    def encode(self, template: np.ndarray) -> Tensor:
        return self._normalized(template)

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: np.ndarray) -> Tensor:
        found = torch.empty((len(searches), BOX), dtype=torch.float64)
        regions = torch.cat([self._normalized(crop) for crop in searches])
        for count in {len(templates) for templates in encoded}:  # targets with a second template, and those without
            chosen = [i for i, templates in enumerate(encoded) if len(templates) == count]
            templates = torch.stack([torch.cat(tuple(encoded[i])) for i in chosen])
            maps = self._model(templates if count > 1 else templates.squeeze(1), regions[chosen])
            found[chosen] = fk.frame.decode(maps, self._window).double().cpu()
        return found


def network_for(
    model: FERMT | Packed, dtype: torch.dtype | None, second_template: bool = False
) -> PackedNetwork | ModuleNetwork:
    """The packed frame where the model's device and dtype, and the backend that it asks for, have it.

    Args:
        model: weights, packed or not.
        dtype: of the packed frame's matrices; None takes the model's own.
        second_template: whether a target may have two templates, which no packed frame takes.

    Raises:
        ValueError: a dtype, or a packed model, is asked for where there is no packed frame; the message says why.
    """
    if isinstance(model, Packed):
        if second_template:
            raise ValueError(f"{TWO}; give the model itself")
        if dtype not in (None, model.dtype):
            raise ValueError(f"the model was packed in {model.dtype}, and cannot run in {dtype}; pack it again")
        return PackedNetwork(model)
    parameter = next(model.parameters())
    wanted = dtype or parameter.dtype
    if second_template:
        reason: str | None = TWO
    else:
        reason = (
            OTHERS if model.backend is None else fk.frame.unavailable_reason(wanted, parameter.device, model.backend)
        )
    if reason is None:
        return PackedNetwork(fk.frame.pack(model, wanted, backend=model.backend or "auto"))
    if wanted != parameter.dtype:
        raise ValueError(f"no packed frame in {wanted}: {reason}")
    return ModuleNetwork(model)


def hann_window(size: int) -> Tensor:
    """(size, size) float64, the product of two Hann windows without their zero ends; it favours the centre."""
    steps = torch.arange(1, size + 1, dtype=torch.float64)
    line = 0.5 * (1 - torch.cos(2 * torch.pi * steps / (size + 1)))
    return torch.outer(line, line)
