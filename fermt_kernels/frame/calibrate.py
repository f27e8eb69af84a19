"""Calibration for int8 packing, and the error that packing causes in the head's maps."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..modes import evaluating
from ..spec.heads import CONVOLUTIONS, HEADS
from ..spec.normalization import MEAN, STD
from .cuda_model import CudaPackedModel
from .packed import PackedModel
from .run import encode_template, track_frame


class HeadRanges(NamedTuple):
    """Ranges of the head's feature maps: smallest and largest value of its input, and largest of each convolution."""

    least: float
    largest: float
    outputs: dict[tuple[str, int], float]  # (branch, number of the convolution) -> largest value after its ReLU


def head_ranges(model: Any, templates: Tensor, searches: Tensor) -> HeadRanges:
    """Runs the model on pairs of crops and records the ranges of its head's feature maps.

    Args:
        model: as `pack` takes it, and callable on normalized images as FERMT is.
        templates, searches: uint8 RGB, (N, S, S, 3) each, S as the model has them.
    """
    lows: list[float] = []
    highs: list[float] = []
    outputs: dict[tuple[str, int], float] = {}

    def record_input(module: Any, inputs: tuple[Tensor, ...]) -> None:
        lows.append(inputs[0].min().item())
        highs.append(inputs[0].max().item())

    def record_output(key: tuple[str, int]) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            outputs[key] = max(outputs.get(key, 0.0), output.max().item())

        return hook

    head = HEADS[model.config.head]
    dtype = next(model.parameters()).dtype
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.inference_mode())
        for branch in (branch.name for branch in head.branches):
            first = model.get_submodule(f"box_head.conv1_{branch}")
            stack.callback(first.register_forward_pre_hook(record_input).remove)
            for i in CONVOLUTIONS:
                module = model.get_submodule(f"box_head.conv{i}_{branch}")
                stack.callback(module.register_forward_hook(record_output((branch, i))).remove)
        for template, search in zip(templates, searches, strict=True):
            model(_normalized(template, dtype), _normalized(search, dtype))
    return HeadRanges(min(0.0, *lows), max(0.0, *highs), outputs)


class MapError(NamedTuple):
    """The error of one of a packed model's maps against the model's own, over all crops."""

    largest: float
    rms: float


def accuracy(
    model: Any, packed: PackedModel | CudaPackedModel, templates: Tensor, searches: Tensor
) -> dict[str, MapError]:
    """Measures the error of a packed model's maps against the model in float64.

    Args:
        model: the model that was packed; it is not changed.
        packed: `pack(model, ...)`.
        templates, searches: uint8 RGB, (N, S, S, 3) each; use other crops than those of the calibration.

    Returns:
        Largest and root-mean-square error of each map, by the map's name.
    """
    exact = copy.deepcopy(model).double()
    device = next(exact.parameters()).device
    squares: dict[str, list[float]] = {}
    largest: dict[str, float] = {}
    with evaluating(exact), torch.inference_mode():
        for template, search in zip(templates, searches, strict=True):
            maps = track_frame(packed, encode_template(packed, template), search)
            truth = exact(*(_normalized(crop, torch.float64).to(device) for crop in (template, search)))
            for name, value in maps.items():
                difference = value.double() - truth[name].to(value.device)
                largest[name] = max(largest.get(name, 0.0), difference.abs().max().item())
                squares.setdefault(name, []).append(difference.square().mean().item())
    return {name: MapError(largest[name], (sum(squares[name]) / len(squares[name])) ** 0.5) for name in largest}


def _normalized(crop: Tensor, dtype: torch.dtype) -> Tensor:
    """Crop (S, S, 3) uint8 -> normalized image (1, 3, S, S) in `dtype`."""
    mean, std = (torch.tensor(values, dtype=dtype, device=crop.device) for values in (MEAN, STD))
    return ((crop.to(dtype) / 255 - mean) / std).permute(2, 0, 1).unsqueeze(0).contiguous()
