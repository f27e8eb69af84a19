"""What a tracker runs: crops in, the head's maps out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

import fermt_kernels as fk

from ..data import normalize
from ..model import FERMT
from ..model.fermt import HEADS

Maps = dict[str, Tensor]
OTHERS = "the model's attention and Dual Attention Unit are not all this package's and on one backend"


class Network(Protocol):
    """One target's network. Crops are (S, S, 3) uint8 RGB."""

    head: type  # has `decode` and `confidence`
    dtype: torch.dtype  # of the maps
    device: torch.device
    template_size: int
    search_size: int
    template_factor: float
    search_factor: float
    grid: int

    def encode(self, template: np.ndarray) -> Tensor:
        """What `run` wants of a template crop."""

    def run(self, encoded: Tensor, search: np.ndarray) -> Maps:
        """The head's maps of a search crop, for one target."""


class PackedNetwork:
    """A packed model: a frame is one call of the compiled library, and the template is encoded once."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, packed: fk.frame.PackedModel) -> None:
        self._packed = packed
        self._workspace = fk.frame.Workspace()
        self.head = HEADS[packed.head]
        self.template_size, self.search_size, self.grid = packed.template_size, packed.search_size, packed.grid
        self.template_factor, self.search_factor = packed.template_factor, packed.search_factor

    def encode(self, template: np.ndarray) -> Tensor:
        return fk.frame.encode_template(self._packed, torch.from_numpy(template), workspace=self._workspace)

    def run(self, encoded: Tensor, search: np.ndarray) -> Maps:
        return fk.frame.track_frame(self._packed, encoded, torch.from_numpy(search), workspace=self._workspace)


class ModuleNetwork:
    """The model as it is, in its own dtype and on its own device; it sees the template in every frame."""

    def __init__(self, model: FERMT) -> None:
        self._model = model.eval()
        config, parameter = model.config, next(model.parameters())
        self.head, self.dtype, self.device = HEADS[config.head], parameter.dtype, parameter.device
        self.template_size, self.search_size, self.grid = config.template_size, config.search_size, config.search_grid
        self.template_factor, self.search_factor = config.template_factor, config.search_factor

    def encode(self, template: np.ndarray) -> Tensor:
        return normalize(template, dtype=self.dtype, device=self.device)

    def run(self, encoded: Tensor, search: np.ndarray) -> Maps:
        return self._model(encoded, normalize(search, dtype=self.dtype, device=self.device))


def network_for(model: FERMT | fk.frame.PackedModel, dtype: torch.dtype | None) -> PackedNetwork | ModuleNetwork:
    """The packed frame where the model's device and dtype, and the backend that it asks for, have it.

    Args:
        model: weights, packed or not.
        dtype: of the packed frame's matrices; None takes the model's own.

    Raises:
        ValueError: a dtype is asked for and there is no packed frame for it; the message says why.
    """
    if isinstance(model, fk.frame.PackedModel):
        if dtype not in (None, model.dtype):
            raise ValueError(f"the model was packed in {model.dtype}, and cannot run in {dtype}; pack it again")
        return PackedNetwork(model)
    parameter = next(model.parameters())
    wanted = dtype or parameter.dtype
    reason = OTHERS if model.backend is None else fk.frame.why_not(wanted, parameter.device, model.backend)
    if reason is None:
        return PackedNetwork(fk.frame.pack(model, wanted))
    if wanted != parameter.dtype:
        raise ValueError(f"no packed frame in {wanted}: {reason}")
    return ModuleNetwork(model)
